//! A gate before a control node: it speaks plain HTTP to the client and TLS to the node, and can lose what the node answers.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::Rest;

/// Headers that belong to one connection.
const OF_CONNECTION: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "accept-encoding"];

/// A request that came through.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GET` and so on.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What was sent.
    pub body: Vec<u8>,
    /// What the node answered, whether the client heard of it or not.
    pub status: u16,
}

impl Seen {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// A listener on this machine; dropping it ends it.
pub struct Gate {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    losing: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Gate {
    /// Opens a gate to the node that `rest` talks to. Its token is not used: clients show their own.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn open(rest: &Rest) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (seen, losing): (Arc<Mutex<Vec<Seen>>>, Arc<AtomicUsize>) = Default::default();
        let mut tasks = JoinSet::new();
        let (rest, in_seen, in_losing) = (rest.showing(&[]), seen.clone(), losing.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (rest, seen, losing) = (rest.clone(), in_seen.clone(), in_losing.clone());
                connections.spawn(async move {
                    // A client that goes away is no fault.
                    let _ = pass(BufStream::new(stream), rest, &seen, &losing).await;
                });
            }
        });
        Self { address, seen, losing, _tasks: tasks }
    }

    /// What clients are told as the base.
    pub fn base(&self) -> String {
        format!("http://{}/client/v4", self.address)
    }

    /// Loses so many of the answers that come next: the node has done what was asked, and the connection ends.
    pub fn lose(&self, answers: usize) {
        self.losing.store(answers, Ordering::SeqCst);
    }

    /// What came through since this was asked last.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn pass(mut client: BufStream<TcpStream>, mut rest: Rest, seen: &Mutex<Vec<Seen>>, losing: &AtomicUsize) -> io::Result<()> {
    loop {
        let mut request = read_request(&mut client).await?;
        let headers: Vec<_> = request.headers.iter().filter(|(name, _)| !OF_CONNECTION.contains(&name.as_str())).cloned().collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = rest.send(&request.method, &request.path, &headers, &request.body).await?;
        request.status = answer.status;
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        if losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Ok(());
        }
        let mut head = format!("HTTP/1.1 {} Answer\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in answer.headers.iter().filter(|(name, _)| !OF_CONNECTION.contains(&name.as_str())) {
            head += &format!("{name}: {value}\r\n");
        }
        client.write_all(format!("{head}\r\n").as_bytes()).await?;
        client.write_all(&answer.body).await?;
        client.flush().await?;
    }
}

async fn read_request(client: &mut BufStream<TcpStream>) -> io::Result<Seen> {
    let line = read_line(client).await?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = words.next().zip(words.next()).ok_or_else(|| io::Error::other(line.clone()))?;
    let mut request = Seen { method, path, headers: Vec::new(), body: Vec::new(), status: 0 };
    loop {
        let line = read_line(client).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length: usize = request.header("content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
    request.body = vec![0; length];
    client.read_exact(&mut request.body).await?;
    Ok(request)
}

async fn read_line(client: &mut BufStream<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if client.take(64 << 10).read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
