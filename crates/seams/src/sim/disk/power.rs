//! What is left when the power goes.
//!
//! The contract is that of [`Disk`](crate::Disk): what was synced is there. Of the rest a disk may keep what it likes. An old one keeps writes
//! in the order in which they came, and tears the last; a file system over a cache writes pages back in an order of its own, so that a
//! later write is there and an earlier one is not, or the end of a write and not its beginning. Where a page is missing, its old
//! bytes are there, or zeros where the file had already been given the room.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::{Content, File, Inner, SimDisk, Unsynced, lock, point};
use crate::{Entropy, sim::SimEntropy};

/// What a file loses of the writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The last of them; the first of those is torn at some byte.
    Suffix,
    /// Any of them, each whole.
    Writes,
    /// Any pages of this many bytes of any of them.
    Pages(usize),
}

/// What a crash left otherwise than an orderly disk would have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survived {
    /// Files in which an unsynced write, or a page of one, is gone and a later one is there.
    pub holes: u64,
    /// Changes of names that are there though their folder was not synced.
    pub names: u64,
}

/// Mixed into what a stream of its own starts from.
const OWN: u64 = 0x0005_10e5_0f5e_c70c;

impl SimDisk {
    /// Power off and on. Each file loses what it loses of what was not synced, by one [`Loss`] or another; so do changes of names that were
    /// not synced, none of which is there, or the first of them, or any. Handles opened before must not be used any more.
    ///
    /// What an orderly disk would not do is drawn from a stream of its own, so that of `entropy` no more is used than by a [`Loss::Suffix`].
    pub fn crash(&self, entropy: &dyn Entropy) -> Survived {
        self.power_off(entropy, None)
    }

    /// As [`SimDisk::crash`], and each file loses by the same rule; no name is there that was not synced.
    pub fn crash_losing(&self, entropy: &dyn Entropy, loss: Loss) -> Survived {
        self.power_off(entropy, Some(loss))
    }

    fn power_off(&self, entropy: &dyn Entropy, always: Option<Loss>) -> Survived {
        let mut inner = lock(&self.0);
        let mut survived = Survived::default();
        let mut drawn = OWN;
        for content in inner.durable.values() {
            let mut file = lock(content);
            let number = entropy.number();
            drawn = drawn.rotate_left(7) ^ number;
            survived.holes += u64::from(file.lose(number, entropy, always));
        }
        let own = SimEntropy::new(drawn);
        if always.is_none() {
            survived.names = inner.keep_names(&own);
        }
        // Files that have no durable name but this one.
        for content in inner.durable.values() {
            let mut file = lock(content);
            if !file.unsynced.is_empty() {
                survived.holes += u64::from(file.lose(own.number(), &own, always));
            }
        }
        // Handles of before keep their old content: a fresh copy makes late writes of a dead process harmless.
        let fresh = |content: &Content| Arc::new(Mutex::new(lock(content).clone()));
        inner.now = inner.durable.iter().map(|(path, content)| (path.clone(), fresh(content))).collect();
        inner.durable = inner.now.clone();
        inner.renamed.clear();
        survived
    }
}

impl Inner {
    /// Makes some of the changes of names durable that were not synced; how many.
    fn keep_names(&mut self, own: &SimEntropy) -> u64 {
        let renamed = std::mem::take(&mut self.renamed);
        let (manner, first) = (own.number() % 3, own.number() as usize % (renamed.len() + 1));
        let mut lost: Vec<PathBuf> = Vec::new();
        let mut kept = 0;
        for (at, change) in renamed.into_iter().enumerate() {
            let stays = match manner {
                0 => false,
                1 => at < first,
                // What is done to a name, or below it, depends on what was done to it before.
                _ => own.number().is_multiple_of(2) && !change.what.iter().any(|path| lost.iter().any(|gone| path.starts_with(gone))),
            };
            if stays {
                change.names.iter().for_each(|name| point(&mut self.durable, name));
                kept += 1;
            } else {
                lost.extend(change.what);
            }
        }
        kept
    }
}

impl File {
    /// Makes of the file what is left of it; whether that has a hole. `number` decides how, and is the first that is drawn.
    fn lose(&mut self, number: u64, entropy: &dyn Entropy, always: Option<Loss>) -> bool {
        let unsynced = std::mem::take(&mut self.unsynced);
        let mut after = std::mem::take(&mut self.durable);
        let kept = number as usize % (unsynced.len() + 1);
        // Drawn whether it is used or not.
        let torn = match unsynced.get(kept) {
            Some(Unsynced::Write(_, bytes)) => entropy.number() as usize % (bytes.len() + 1),
            _ => 0,
        };
        let own = SimEntropy::new(number ^ OWN);
        let drawn = match own.number() % 6 {
            0 | 1 => Loss::Suffix,
            2 => Loss::Writes,
            3 | 4 => Loss::Pages(512),
            _ => Loss::Pages(4096),
        };
        let hole = match always.unwrap_or(drawn) {
            Loss::Suffix => {
                unsynced[..kept].iter().for_each(|change| Self::apply(&mut after, change));
                if let Some(Unsynced::Write(offset, bytes)) = unsynced.get(kept)
                    && torn > 0
                {
                    Self::apply(&mut after, &Unsynced::Write(*offset, bytes[..torn].to_vec()));
                }
                false
            }
            Loss::Writes => scatter(&mut after, unsynced, &own),
            Loss::Pages(bytes) => scatter(&mut after, unsynced.into_iter().flat_map(|change| pages(change, bytes)), &own),
        };
        self.now = after.clone();
        self.durable = after;
        hole
    }
}

/// Keeps some of the changes; whether there is one before which another is missing.
fn scatter(content: &mut Vec<u8>, changes: impl IntoIterator<Item = Unsynced>, own: &SimEntropy) -> bool {
    let kept_of_8 = [1, 4, 7][own.number() as usize % 3];
    let zeros = own.number().is_multiple_of(4);
    let (mut lost, mut hole) = (false, false);
    for change in changes {
        if own.number() % 8 < kept_of_8 {
            File::apply(content, &change);
            hole |= lost;
            continue;
        }
        lost = true;
        if let Unsynced::Write(offset, bytes) = change
            && zeros
        {
            File::apply(content, &Unsynced::Write(offset, vec![0; bytes.len()]));
        }
    }
    hole
}

/// A write as one of each page that it touches.
fn pages(change: Unsynced, page: usize) -> Vec<Unsynced> {
    let Unsynced::Write(offset, bytes) = change else { return vec![change] };
    let (mut pieces, mut rest, mut at) = (Vec::new(), &bytes[..], offset);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(page - at as usize % page));
        pieces.push(Unsynced::Write(at, piece.to_vec()));
        (rest, at) = (behind, at + piece.len() as u64);
    }
    pieces
}
