//! What people write: the configuration of both servers, the file of contexts, and files of secrets to import.

use std::{fs, path::Path};

use runtime::config::{self, Checks, ControlConfig, EdgeConfig};

use super::{Seen, Target};

pub(super) const TARGETS: &[Target] = &[
    Target::new("control_toml", &["runtime/src/config.rs", "runtime/src/config/units.rs"], || samples("control"), parsed::<ControlConfig>)
        .with_words(WORDS)
        .up_to(16 << 10, 8 << 20),
    Target::new("edge_toml", &["runtime/src/config.rs", "runtime/src/config/peers.rs"], || samples("edge"), parsed::<EdgeConfig>)
        .with_words(WORDS)
        .up_to(16 << 10, 8 << 20),
    Target::new("contexts_toml", &["cli/src/context.rs"], contexts, context).with_words(WORDS).up_to(16 << 10, 8 << 20),
    Target::new("import_file", &["cli/src/import.rs", "cli/src/import/env.rs", "cli/src/import/json.rs"], imports, import)
        .with_words(IMPORT_WORDS)
        .up_to(16 << 10, 8 << 20),
];

const WORDS: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "=",
    "\n",
    "\"",
    "'''",
    "\"\"\"",
    "#",
    "{",
    "}",
    ".",
    ",",
    "inf",
    "nan",
    "0x",
    "1e999",
    "1979-05-27T07:32:00Z",
    "true",
    "-1",
    "18446744073709551616",
    "KiB",
    "GiB",
    "30s",
    "\\u",
    "\u{0}",
    "connections",
    "node",
    "listen",
    "limits",
    "peer",
    "[a.b.c]",
];

const IMPORT_WORDS: &[&str] = &[
    "=",
    "\n",
    "\r\n",
    "\"",
    "'",
    "`",
    "#",
    " #",
    "export ",
    "$",
    "${A}",
    "\\",
    "\\n",
    "\\\"",
    "\u{feff}",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "\"name\"",
    "\"value\"",
    "\"scopes\"",
    "\"comment\"",
    "\\ud800",
    "1e999",
    "workers",
];

/// The samples that are shipped, whole and each part of them.
fn samples(of: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).expect("the samples") {
        let path = entry.expect("a sample").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.contains(of) && name.ends_with(".toml") {
            texts.push(fs::read(path).expect("a sample"));
        }
    }
    texts
}

fn parsed<C: Checks>(bytes: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(bytes);
    match config::parse::<C>(Path::new("file.toml"), &text) {
        Ok(config) => {
            let written = config::render(&config).expect("a configuration can be written");
            let again = config::parse::<C>(Path::new("file.toml"), &written).expect("what was rendered parses");
            assert_eq!(config::render(&again).expect("again"), written, "a configuration that is rendered and read again is another");
            Seen::Read(format!("{} bytes", written.len()))
        }
        Err(error) => Seen::Refused(error.to_string()),
    }
}

fn contexts() -> Vec<Vec<u8>> {
    let text = "current = \"dev\"\n\n[contexts.dev]\ncontrol = \"127.0.0.1:7400\"\nca = \"pem\"\ntoken = \"cbo_x\"\nmembers = [\"a:1\"]\n\n\
        [[contexts.dev.edges]]\nname = \"edge-1\"\nsocket = \"edge.sock\"\n";
    vec![text.into()]
}

fn context(bytes: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(bytes);
    match cli::Contexts::parse(Path::new("contexts.toml"), &text) {
        Ok(contexts) => {
            let chosen = contexts.choose(None).map(|(_, context)| context.addresses().len());
            Seen::Read(format!("{} contexts, {}", contexts.contexts.len(), chosen.unwrap_or_default()))
        }
        Err(error) => Seen::Refused(error.to_string()),
    }
}

fn imports() -> Vec<Vec<u8>> {
    let texts = [
        "# of a test\nexport A=plain\nB=\"quoted \\n twice\"\nC='several\nlines'\n",
        "{\"A\": \"1\", \"B\": \"two\"}",
        "[{\"name\": \"A\", \"value\": \"1\", \"scopes\": [\"workers\"], \"comment\": \"why\"}]",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

fn import(bytes: &[u8]) -> Seen {
    match cli::imported(bytes, None) {
        Ok(found) => {
            let held: usize = found.iter().map(|(_, length)| length).sum();
            assert!(held <= bytes.len(), "{held} bytes of values out of {}", bytes.len());
            assert!(found.iter().all(|(name, length)| *length > 0 && types::SecretName::new(name.as_str()).is_ok()), "{found:?}");
            Seen::Read(format!("{} secrets", found.len()))
        }
        Err(doubt) => Seen::Refused(doubt),
    }
}
