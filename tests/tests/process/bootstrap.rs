//! An edge with an empty disk, after the window has moved on, is brought up from a snapshot while writes go on.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use runtime::config::ByteSize;
use tests::process::{Cluster, Operator, Server, until};
use tokio::task::JoinSet;
use types::Position;
use wire::v1;

/// A counter or gauge of a server, all its labels together; 0 when it has none yet.
fn metric(server: &Server, name: &str) -> f64 {
    let (_, text) = server.health("/metrics").unwrap();
    let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok());
    text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))).filter_map(value).sum()
}

/// One writer: a new value for the same secret as fast as it is acknowledged.
struct Writes {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Position>,
}

impl Writes {
    fn start(operator: &Operator) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (operator, stopped, count) = (operator.clone(), stop.clone(), acknowledged.clone());
        let task = tokio::spawn(async move {
            loop {
                let (version, position) = operator.set("TICKER", b"tick").await;
                count.store(version, Ordering::Relaxed);
                if stopped.load(Ordering::Relaxed) {
                    return position;
                }
            }
        });
        Self { stop, acknowledged, task }
    }

    /// The version acknowledged last.
    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    async fn end(self) -> Position {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// More than the smallest window, in the largest values.
async fn outgrow_the_window(operator: &Operator) {
    const SECRETS: usize = 8;
    const VALUES: usize = 36;
    let large = |number: usize| vec![b'a' + u8::try_from(number % 26).unwrap(); 65_536];
    for number in 0..SECRETS {
        operator.try_create(&format!("LARGE_{number}"), &large(number)).await.unwrap();
    }
    let mut writers = JoinSet::new();
    for number in 0..SECRETS {
        let operator = operator.clone();
        writers.spawn(async move {
            for value in 0..VALUES {
                operator.set(&format!("LARGE_{number}"), &large(value)).await;
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn edge_with_an_empty_disk_behind_the_window_comes_up_from_a_snapshot_while_writes_go_on() {
    let mut cluster = Cluster::prepare(2);
    cluster.configure_control(|config| config.limits.window_bytes = ByteSize::from_mib(16));
    cluster.start_control().await;
    cluster.start_edge(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.create_bound("TICKER", b"tick").await;
    outgrow_the_window(&operator).await;
    operator.bind("LARGE", "LARGE_0").await;
    let window = metric(cluster.control(), "cinnabar_feed_window_bytes");
    assert!(window <= f64::from(16 << 20) && window > f64::from(8 << 20), "the window is bounded, and full: {window}");
    assert_eq!(metric(cluster.control(), "cinnabar_feed_snapshot_sent_bytes_total"), 0.0, "who follows from the start needs no snapshot");

    // Edge 2 has never run; writes go on before, while and after it comes up.
    let writes = Writes::start(&operator);
    let before = writes.acknowledged();
    cluster.start_edge(2).await;
    let sent = metric(cluster.control(), "cinnabar_feed_snapshot_sent_bytes_total");
    assert!(sent > 8.0 * 65_536.0, "{sent} bytes of snapshots were sent");
    until("writes to go on", async || {
        let now = writes.acknowledged();
        if now > before + 5 { Ok(()) } else { Err(format!("{now} after {before}")) }
    })
    .await;
    let last = writes.end().await;
    operator.live(last).await;
    let (one, two) = (cluster.reader(1), cluster.reader(2));
    for binding in ["TICKER", "LARGE"] {
        let (one, two) = (one.get_at(binding, last).await.unwrap(), two.get_at(binding, last).await.unwrap());
        assert_eq!((one.value, one.version), (two.value, two.version));
    }

    // Again with a disk that is lost, and with a window that a restart of the control node emptied.
    let control = cluster.take_control();
    assert_eq!(control.stop().await.code(), Some(0));
    cluster.take_edge(2).kill();
    fs::remove_dir_all(cluster.edge_data(2)).unwrap();
    cluster.start_control().await;
    cluster.start_edge(2).await;
    assert!(metric(cluster.control(), "cinnabar_feed_snapshot_sent_bytes_total") > 0.0);
    let (version, written) = operator.set("TICKER", b"tock").await;
    operator.live(written).await;
    let found = cluster.reader(2).get_at("TICKER", written).await.unwrap();
    assert_eq!((found.value.as_slice(), found.version), (&b"tock"[..], version));
    let status = operator.client.status(v1::ShowStatusRequest {}).await.unwrap();
    assert!(status.edges.iter().all(|edge| edge.connected && edge.watermark.map(Position::from) >= Some(written)), "{status:?}");
}
