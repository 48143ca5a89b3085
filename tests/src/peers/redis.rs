//! One Redis on a UNIX socket, and a client of it: the crate that Rust programs use.

use std::path::{Path, PathBuf};

use redis::aio::MultiplexedConnection;

use super::process::Peer;
use crate::process::until;

/// The running server.
pub(super) struct Redis {
    server: Option<Peer>,
    programs: PathBuf,
    arguments: Vec<String>,
    socket: PathBuf,
}

impl Redis {
    /// On a socket in `folder`. It keeps nothing on disk, or with `durable` a log that it syncs once a second, as is usual.
    pub(super) async fn start(programs: &Path, folder: &Path, durable: bool) -> Self {
        let socket = folder.join("redis.sock");
        let arguments = [
            ("port", "0".to_owned()),
            ("unixsocket", socket.display().to_string()),
            ("dir", folder.display().to_string()),
            ("save", String::new()),
            ("appendonly", if durable { "yes" } else { "no" }.to_owned()),
            ("appendfsync", "everysec".to_owned()),
        ];
        let arguments: Vec<_> = arguments.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect();
        let mut redis = Self { server: None, programs: programs.to_owned(), arguments, socket };
        redis.restart().await;
        redis
    }

    /// Kills the server, starts it again, and waits until it answers.
    pub(super) async fn restart(&mut self) {
        self.server = None;
        let log = self.socket.with_extension("log");
        let server = self.server.insert(Peer::start(&self.programs, "redis-server", &self.arguments, &log));
        until("Redis to answer", async || {
            server.must_run();
            let mut connection = connect(&self.socket).await.map_err(|error| error.to_string())?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.map_err(|error| error.to_string())
        })
        .await;
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.server.iter().map(Peer::pid).collect()
    }

    /// A connection of one caller.
    pub(super) async fn connection(&self) -> Connection {
        Connection(connect(&self.socket).await.expect("Redis takes connections"))
    }
}

async fn connect(socket: &Path) -> redis::RedisResult<MultiplexedConnection> {
    redis::Client::open(format!("unix://{}", socket.display()))?.get_multiplexed_async_connection().await
}

/// What one caller reads with.
#[derive(Clone)]
pub(super) struct Connection(MultiplexedConnection);

impl Connection {
    pub(super) async fn set(&mut self, key: String, value: Vec<u8>) {
        redis::cmd("SET").arg(key).arg(value).query_async::<()>(&mut self.0).await.expect("a SET of Redis");
    }

    /// The value's length.
    pub(super) async fn get(&mut self, key: String) -> usize {
        redis::cmd("GET").arg(key).query_async::<Vec<u8>>(&mut self.0).await.expect("a GET of Redis").len()
    }

    /// Several in one write and one read; the values' lengths together.
    pub(super) async fn get_all(&mut self, keys: Vec<String>) -> usize {
        let mut pipe = redis::pipe();
        keys.into_iter().for_each(|key| _ = pipe.get(key));
        pipe.query_async::<Vec<Vec<u8>>>(&mut self.0).await.expect("GETs of Redis").iter().map(Vec::len).sum()
    }
}
