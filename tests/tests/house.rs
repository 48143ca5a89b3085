//! The rules of the house: who may depend on whom, what is linked and under which licence, and how the checkout is laid out.
//!
//! What is linked is what cargo builds for this machine: a library that stands in the lock file, but that no feature in force
//! asks for, does not count.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this is a test: it fails where it stands, and says so")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use seams::mutation::Mutation;

/// The house plan: each crate, and which of the others it may be built with. What is not in a row is forbidden, and the row of
/// a crate that is not there yet is welcome. "The replicated state, the feed and the local store cannot open a record" is the
/// absence of `seal` in three rows.
const PLAN: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("seams", &["types"]),
    ("seal", &["types", "seams"]),
    ("hsm", &["types", "seams", "seal"]),
    ("state", &["types"]),
    ("store", &["types", "seams"]),
    ("wire", &["types"]),
    ("runtime", &["types", "seams"]),
    // The node's side of its identity: tokens and envelope keys (`seal`), the signer set it pins (`state`), the protocol (`wire`), TLS
    // (`runtime`). A crate of its own, because both servers, and `cluster init`, make and keep identities the same way.
    ("enrol", &["types", "seams", "seal", "state", "wire", "runtime"]),
    ("feed", &["types", "seams", "state", "store", "wire"]),
    ("lookup", &["types", "seams", "seal", "state", "store", "wire"]),
    // The doors of whoever serves lookups: an edge, and a control node that is told to.
    ("doors", &["types", "seams", "wire", "runtime", "lookup"]),
    ("consensus", &["types", "seams", "state", "store", "wire"]),
    ("dashboard", &["types", "wire"]),
    // All that stand in the rows above.
    ("control", EVERYTHING.split_at(14).0),
    ("edge", &["types", "seams", "seal", "state", "store", "wire", "runtime", "enrol", "feed", "lookup", "doors"]),
    ("client", &["types", "wire"]),
    ("cli", &["types", "wire", "runtime", "client"]),
    ("cinnabar", EVERYTHING),
    ("tests", EVERYTHING),
];

/// All crates but the binary and the tests.
const EVERYTHING: &[&str] = &[
    "types",
    "seams",
    "seal",
    "hsm",
    "state",
    "store",
    "wire",
    "runtime",
    "enrol",
    "feed",
    "lookup",
    "doors",
    "consensus",
    "dashboard",
    "control",
    "edge",
    "client",
    "cli",
];

/// Licences that ask for no more than a notice.
const LICENCES: &[&str] = &["Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Unicode-3.0", "Zlib", "CC0-1.0", "BSL-1.0"];

/// Libraries that nobody maintains, and through which one alone they may come. sled 0.34 needs them: RUSTSEC-2025-0057
/// (fxhash, a hash function) and RUSTSEC-2024-0384 (instant, a clock); neither has a known fault.
const UNMAINTAINED: &[(&str, &str)] = &[("fxhash", "sled"), ("instant", "sled")];

/// TLS and ciphers come from rustls on aws-lc-rs and from RustCrypto; a second provider would be a second thing to trust.
/// `rio` is sled's io_uring, under the GPL.
const FORBIDDEN: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls", "boring", "boring-sys", "mbedtls", "s2n-tls", "rio"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the root").to_owned()
}

/// The members of the workspace.
fn members() -> Vec<Package> {
    MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .other_options(["--locked".to_owned()])
        .exec()
        .expect("cargo metadata works")
        .packages
}

/// A package that is built, with the features in force.
struct Built {
    name: String,
    licence: String,
    features: BTreeSet<String>,
}

/// Everything that the members are built with, themselves included, less what only tests need and less what comes through
/// `pruned` alone. As `cargo tree` says: `cargo metadata` also lists optional packages that no feature in force asks for.
fn built(pruned: Option<&str>) -> Vec<Built> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args([
        "tree",
        "--workspace",
        "--locked",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}|{f}",
    ]);
    command.args(pruned.map(|name| ["--prune", name]).into_iter().flatten());
    let output = command.output().expect("cargo is there");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let lines = text.lines().map(|line| line.trim_end_matches(" (*)")).filter(|line| !line.is_empty());
    let package = |line: &str| {
        let [package, licence, features] = line.split('|').collect::<Vec<_>>().try_into().expect("three parts, as asked for");
        let name = package.split(' ').next().unwrap_or_default().to_owned();
        Built { name, licence: licence.to_owned(), features: features.split(',').map(str::to_owned).collect() }
    };
    lines.map(package).collect()
}

fn names(pruned: Option<&str>) -> BTreeSet<String> {
    built(pruned).into_iter().map(|package| package.name).collect()
}

/// The features of a package in force, of all its versions together.
fn features(name: &str) -> BTreeSet<String> {
    built(None).into_iter().filter(|package| package.name == name).flat_map(|package| package.features).collect()
}

#[test]
fn crates_depend_only_on_what_the_plan_allows() {
    let members = members();
    let plan: BTreeMap<_, _> = PLAN.iter().copied().collect();
    let inner: BTreeSet<String> = members.iter().map(|package| package.name.to_string()).collect();
    let mut wrong = Vec::new();
    for package in &members {
        let name = package.name.as_str();
        let Some(allowed) = plan.get(name) else {
            wrong.push(format!("{name} is not in the plan; add a row with its reason"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| inner.contains(&dependency.name)) {
            let to = dependency.name.as_str();
            // A crate's tests may use more, and the crate itself with other features; but nobody uses `tests`.
            let for_tests = dependency.kind == DependencyKind::Development && to != "tests";
            if !for_tests && !allowed.contains(&to) {
                wrong.push(format!("{name} depends on {to}, which the plan does not allow"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn plan_has_no_circle_and_names_only_its_own_rows() {
    let mut above = BTreeSet::new();
    for (name, allowed) in PLAN {
        for dependency in *allowed {
            // Rows stand in the order of dependence, except that the two last may use every row.
            assert!(above.contains(dependency), "{name} may depend on {dependency}, which has no row above it");
        }
        above.insert(*name);
    }
}

#[test]
fn workspace_is_flat_and_virtual_and_folders_are_named_for_crates() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the root manifest is there");
    assert!(!manifest.lines().any(|line| line.trim() == "[package]"), "the root manifest is virtual");
    for package in members() {
        let folder = package.manifest_path.parent().expect("a manifest lies in a folder").as_std_path();
        let expected =
            if package.name.as_str() == "tests" { root().join("tests") } else { root().join("crates").join(package.name.as_str()) };
        assert_eq!(folder, expected);
        let own = fs::read_to_string(&package.manifest_path).expect("a manifest can be read");
        assert!(own.contains("[lints]\nworkspace = true"), "{} takes the lints of the workspace", package.name);
        assert_eq!(package.license.as_deref(), Some("Apache-2.0"), "{}", package.name);
        assert_eq!(package.publish, Some(Vec::new()), "{} is not for a registry", package.name);
    }
}

#[test]
fn libraries_have_licences_from_the_list() {
    let allowed = |package: &Built| licence::allows(&package.licence, &|name| LICENCES.contains(&name));
    let packages = built(None);
    assert!(packages.len() > 100, "cargo tree listed only {} packages", packages.len());
    let wrong: BTreeSet<_> = packages
        .into_iter()
        .filter(|package| !allowed(package))
        .map(|package| format!("{}: {:?}", package.name, package.licence))
        .collect();
    let wrong: Vec<_> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "not under a licence of the list:\n{}", wrong.join("\n"));
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allow = |name: &str| name == "MIT" || name == "ISC";
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 / MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND ISC", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("MIT AND (GPL-3.0 OR AGPL-3.0)", false),
        ("MIT WITH odd-exception", false),
        ("MIT WITH odd-exception OR ISC", true),
        ("none", false),
        ("", false),
        ("(MIT", false),
        ("MIT ISC", false),
    ] {
        assert_eq!(licence::allows(expression, &allow), expected, "{expression}");
    }
}

#[test]
fn libraries_hold_one_tls_provider_and_nothing_forbidden() {
    let names = names(None);
    let found: Vec<_> = FORBIDDEN.iter().filter(|name| names.contains(**name)).collect();
    assert!(found.is_empty(), "linked, and must not be: {found:?}");
    let rustls = features("rustls");
    assert!(rustls.contains("aws_lc_rs") && !rustls.contains("ring"), "{rustls:?}");
    assert!(!rustls.contains("tls12"), "TLS 1.2 is not even compiled: {rustls:?}");
    let sled = features("sled");
    assert!(!sled.contains("io_uring") && !sled.contains("compression"), "{sled:?}");
}

/// Simulated parts and deliberate bugs are for tests. `scripts/run` builds the package `cinnabar` alone, so that what tests ask for
/// does not come with it.
#[test]
fn release_holds_nothing_that_is_for_tests() {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION")
        .args(["tree", "--package", "cinnabar", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}|{f}"])
        .output()
        .expect("cargo is there");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let features = |name: &str| {
        let own = format!("{name} v");
        let line = text.lines().find(|line| line.starts_with(&own)).unwrap_or_else(|| panic!("{name} is no part of cinnabar"));
        line.trim_end_matches(" (*)").split_once('|').expect("two parts, as asked for").1.to_owned()
    };
    assert_eq!((features("types"), features("seams")), (String::new(), String::new()));
    for script in tracked().into_iter().filter(|path| path.starts_with("scripts/") || path.starts_with(".ci/")) {
        let text = fs::read_to_string(root().join(&script)).expect("a script can be read");
        let releases = text.lines().filter(|line| line.contains("cargo build") && line.contains("--release"));
        let mut ours = releases.filter(|line| line.contains("--bin cinnabar"));
        let alone = |line: &str| line.contains("--package cinnabar ") && line.matches("--bin ").count() == 1;
        assert_eq!(ours.find(|line| !alone(line)), None, "{script} builds the product with what tests ask for");
    }
}

/// A bug that is kept to be caught has a line in the product where it is put in, and a test that names it.
#[test]
fn deliberate_bugs_have_a_place_in_the_product_and_in_a_test() {
    let is_test = |path: &str| path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs");
    let sources = tracked().into_iter().filter(|path| path.ends_with(".rs") && path != "crates/types/src/mutation.rs");
    let (tests, product): (Vec<_>, Vec<_>) = sources.partition(|path| is_test(path));
    let read = |paths: Vec<String>| -> Vec<String> {
        paths.into_iter().map(|path| fs::read_to_string(root().join(path)).expect("a source can be read")).collect()
    };
    let (tests, product) = (read(tests), read(product));
    for mutation in Mutation::ALL {
        let name = format!("Mutation::{mutation:?}");
        let named = |text: &String| text.match_indices(&name).any(|(at, _)| !text[at + name.len()..].starts_with(char::is_alphanumeric));
        assert!(product.iter().any(named), "{name} is put in nowhere");
        assert!(tests.iter().any(named), "no test names {name}");
    }
}

#[test]
fn libraries_unmaintained_come_only_as_named() {
    let all = names(None);
    for (name, through) in UNMAINTAINED {
        assert!(all.contains(*name), "{name} is gone: remove its exception");
        assert!(!names(Some(through)).contains(*name), "{name} comes by another way than {through}");
    }
}

/// Paths of all tracked files, from the root.
fn tracked() -> Vec<String> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git is there");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout).expect("names of files are UTF-8");
    // A file that was removed and not yet committed is still listed.
    list.split('\0').filter(|path| !path.is_empty() && root().join(path).is_file()).map(str::to_owned).collect()
}

#[test]
fn checkout_top_level_holds_what_the_plan_says() {
    const KNOWN: &[&str] = &[
        "Cargo.toml",
        "Cargo.lock",
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "clippy.toml",
        "crates",
        "deploy",
        "docs",
        "proto",
        "rustfmt.toml",
        "scripts",
        "tests",
    ];
    let top: BTreeSet<String> = tracked().iter().filter_map(|path| path.split('/').next().map(str::to_owned)).collect();
    let odd: Vec<_> = top.iter().filter(|name| !name.starts_with('.') && !KNOWN.contains(&name.as_str())).collect();
    assert!(odd.is_empty(), "not in the plan of the top level: {odd:?}");
}

#[test]
fn checkout_files_name_no_folder_of_one_machine() {
    // In two parts each, so that this file does not find itself.
    let folders = [concat!("/ro", "ot"), concat!("/wo", "rk"), concat!("/ho", "me"), concat!("/Us", "ers")];
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let mut found = Vec::new();
    for path in tracked() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let names_one = folders.iter().any(|folder| {
                line.match_indices(folder).any(|(at, _)| {
                    let (before, after) = (line[..at].chars().next_back(), line[at + folder.len()..].chars().next());
                    !before.is_some_and(part_of_word) && after == Some('/')
                })
            });
            if names_one {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn scripts_can_be_run_from_any_checkout() {
    const TOP: &[&str] = &[
        "bin", "dev", "etc", "home", "lib", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var", "work",
        "Users",
    ];
    let mut wrong = Vec::new();
    let scripts: Vec<String> = tracked().into_iter().filter(|path| path.starts_with("scripts/") || path == ".ci/run").collect();
    assert!(scripts.len() >= 5, "{scripts:?}");
    for path in scripts {
        let file = root().join(&path);
        let text = fs::read_to_string(&file).expect("a script can be read");
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).expect("a script is there"));
        let sourced = path.ends_with(".sh");
        if !sourced && (mode & 0o111 == 0 || !text.starts_with("#!/usr/bin/env bash\n") || !text.contains("\nset -euo pipefail\n")) {
            wrong.push(format!("{path}: must be executable, begin with #!/usr/bin/env bash, and set -euo pipefail"));
        }
        for (number, line) in text.lines().enumerate().skip(1) {
            let absolute = |word: &str| {
                let first = word.strip_prefix('/').and_then(|rest| rest.split('/').next());
                word != "/dev/null" && first.is_some_and(|first| TOP.contains(&first))
            };
            let mut words = line.split(|c: char| c.is_whitespace() || "\"'=:;|&<>()[]{}`$,".contains(c));
            if let Some(word) = words.find(|word| absolute(word)) {
                wrong.push(format!("{path}:{}: absolute path {word}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sources_begin_with_their_header_and_fit_on_a_few_screens() {
    let mut wrong = Vec::new();
    for path in tracked().iter().filter(|path| path.ends_with(".rs")) {
        let text = fs::read_to_string(root().join(path)).expect("a source can be read");
        if text.lines().count() > 1000 {
            wrong.push(format!("{path}: {} lines; split it before 1000", text.lines().count()));
        }
        let is_entry = path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs");
        if is_entry && !text.starts_with("//! ") {
            wrong.push(format!("{path}: begins without a header"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// SPDX licence expressions, as far as manifests use them: AND binds tighter than OR, `/` is an old OR, WITH makes a licence of
/// its own.
mod licence {
    pub(super) fn allows(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
        let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut reader = Reader { words: &words, allowed };
        reader.any_of() == Some(true) && reader.words.is_empty()
    }

    struct Reader<'a> {
        words: &'a [&'a str],
        allowed: &'a dyn Fn(&str) -> bool,
    }

    /// Each returns whether the part is allowed, or none when it is no expression.
    impl Reader<'_> {
        fn any_of(&mut self) -> Option<bool> {
            let mut any = self.all_of()?;
            while self.take("OR") {
                any |= self.all_of()?;
            }
            Some(any)
        }

        fn all_of(&mut self) -> Option<bool> {
            let mut all = self.one()?;
            while self.take("AND") {
                all &= self.one()?;
            }
            Some(all)
        }

        fn one(&mut self) -> Option<bool> {
            if self.take("(") {
                let inside = self.any_of()?;
                return self.take(")").then_some(inside);
            }
            let (name, rest) = self.words.split_first()?;
            self.words = rest;
            if self.take("WITH") {
                self.words = self.words.split_first()?.1;
                return Some(false);
            }
            Some((self.allowed)(name))
        }

        fn take(&mut self, word: &str) -> bool {
            let found = self.words.first() == Some(&word);
            if found {
                self.words = &self.words[1..];
            }
            found
        }
    }
}
