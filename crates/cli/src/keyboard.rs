//! Single keys from a terminal, and the terminal as it was afterwards.

use std::io::{self, IsTerminal, Read};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// Keys that wait to be handled; one more is dropped, as a person can press it again.
const KEYS_MAX: usize = 16;

/// Reads keys until it is dropped.
pub struct Keyboard {
    keys: mpsc::Receiver<char>,
    before: Termios,
}

impl Keyboard {
    /// Takes over the terminal's input, if there is a terminal.
    pub fn open() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut single = before.clone();
        single.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        single.special_codes[SpecialCodeIndex::VMIN] = 1;
        single.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &single).ok()?;
        let (send, keys) = mpsc::channel(KEYS_MAX);
        std::thread::Builder::new()
            .name("keyboard".into())
            .spawn(move || {
                let mut byte = [0];
                while io::stdin().lock().read_exact(&mut byte).is_ok() {
                    if let Err(mpsc::error::TrySendError::Closed(_)) = send.try_send(byte[0] as char) {
                        return;
                    }
                }
            })
            .ok()?;
        Some(Self { keys, before })
    }

    /// The next key; pending for ever once the terminal is gone.
    pub async fn key(&mut self) -> char {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // The terminal may be gone, and then nobody misses it.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
