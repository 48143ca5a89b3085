//! Damaged files of a node: a bit turned, or the end cut off, at a place drawn by a seed, in each of its files in turn.
//!
//! A node either heals, and then is right, or refuses to start, names the file and says what to do. What it must never do is to end in a
//! panic, to try for ever without a word, or to show something else than was written.

use std::{
    fs,
    path::{Path, PathBuf},
};

use seams::{Entropy, sim::SimEntropy};
use tests::process::{Fleet, Readers, Role, Writers, http, until};

use crate::ground::{configured, judge, log, text};

/// Writes that must be acknowledged between two damages.
const WRITES: usize = 2;
/// What an error about a file may tell people to do.
const REMEDIES: [&str; 3] = ["put it back as it was", "replace this voter", "replace a voter"];

/// How often each file is damaged, unless `CINNABAR_DRILL_ROUNDS` says how often: in even rounds the other way than in odd ones.
fn rounds() -> u64 {
    std::env::var("CINNABAR_DRILL_ROUNDS").ok().map_or(1, |text| text.parse().expect("CINNABAR_DRILL_ROUNDS is a number"))
}

/// Where the places of the damage begin, unless `CINNABAR_DRILL_SEED` says where.
fn seed() -> u64 {
    std::env::var("CINNABAR_DRILL_SEED").ok().map_or(1, |text| text.parse().expect("CINNABAR_DRILL_SEED is a number"))
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// One bit is turned.
    Bit,
    /// What follows is lost.
    End,
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .collect();
    found.sort();
    found
}

/// Damages a file somewhere in what was written of it: not in the zeros that are allocated ahead. Where; none of an empty file.
fn damage(file: &Path, damage: Damage, entropy: &dyn Entropy) -> Option<usize> {
    let mut bytes = fs::read(file).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    let draw = entropy.number();
    let place = usize::try_from(draw % u64::try_from(written).unwrap()).unwrap();
    match damage {
        Damage::Bit => bytes[place] ^= 1 << (draw >> 61),
        Damage::End => bytes.truncate(place),
    }
    fs::write(file, bytes).unwrap();
    Some(place)
}

/// What came of a start.
enum Start {
    Ready,
    Refused(String),
}

async fn start(fleet: &mut Fleet, node: &str, what: &str) -> Start {
    let before = log(fleet, node).len();
    fleet.launch(node);
    let health = configured(fleet, node, "health").parse().unwrap();
    until(&format!("{node} to be ready, or to refuse, with {what}"), async || {
        match (fleet.server(node).exited(), http(health, "/readyz")) {
            (Some(_), _) => Ok(Start::Refused(log(fleet, node)[before..].to_owned())),
            (None, Ok((200, _))) => Ok(Start::Ready),
            (None, other) => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Damages each file of a node in turn, under writers.
#[expect(clippy::print_stderr, reason = "a long drill shows what came of each damage")]
async fn damage_each(node: &str) {
    let mut fleet = Fleet::start(3, 2).await;
    let mut writers = Writers::start((0..2).map(|_| fleet.operator()).collect()).await;
    fleet.operator().live(writers.bound()).await;
    let readers = Readers::start(vec![("edge-2".to_owned(), fleet.reader("edge-2"))]);
    // The node's own answers show that it is whole again.
    let operator = match fleet.role(node) {
        Role::Control => fleet.operator_at(&[node]),
        Role::Edge => fleet.operator(),
    };
    operator.create_bound("HEALED", b"0").await;
    let folder = fleet.data(node);
    let (mut healed, mut refused) = (Vec::new(), Vec::new());
    for round in 0..rounds() {
        let entropy = SimEntropy::new(seed() + round);
        writers.go_on(WRITES).await;
        fleet.stop(node).await;
        let names: Vec<_> = files(&folder).into_iter().map(|file| file.strip_prefix(&folder).unwrap().to_owned()).collect();
        assert!(names.len() > 10, "{names:?}");
        for (number, name) in (seed() + round..).zip(names) {
            let how = if number % 2 == 0 { Damage::Bit } else { Damage::End };
            let file = folder.join(&name);
            // Files of the log and the table come and go.
            let Ok(right) = fs::read(&file) else { continue };
            let Some(place) = damage(&file, how, &entropy) else { continue };
            let what = format!("{how:?} at {place} of {} in {}", right.len(), name.display());
            match start(&mut fleet, node, &what).await {
                Start::Ready => {
                    writers.go_on(WRITES).await;
                    let position = operator.set("HEALED", what.as_bytes()).await.1;
                    operator.live(position).await;
                    healed.push(what);
                    fleet.kill(node);
                }
                Start::Refused(said) => {
                    assert!(!said.contains("panicked"), "{what}: a panic:\n{said}");
                    let last = said.lines().last().unwrap_or_default();
                    let names = [text(&file), text(file.parent().unwrap())];
                    let named = file.parent() != Some(&folder) && last.contains(&names[1]) || last.contains(&names[0]);
                    assert!(named, "{what}: the last words do not name it: {last}");
                    assert!(
                        REMEDIES.iter().any(|remedy| last.to_lowercase().contains(remedy)),
                        "{what}: the last words do not say what to do: {last}"
                    );
                    refused.push(what);
                    fleet.kill(node);
                    fs::write(&file, right).unwrap();
                }
            }
        }
        fleet.start_node(node).await;
    }
    eprintln!("{node} healed {healed:#?}\nand refused {refused:#?}");
    assert!(!healed.is_empty() && !refused.is_empty(), "healed: {healed:?}; refused: {refused:?}");
    let said = log(&fleet, node);
    assert!(!said.contains("panicked"), "{node} ended in a panic:\n{said}");
    judge(&fleet, writers, readers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_node_with_damage_in_any_file_heals_or_names_it_and_says_what_to_do() {
    damage_each("control-3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_with_damage_in_any_file_heals_or_names_it_and_says_what_to_do() {
    damage_each("edge-1").await;
}
