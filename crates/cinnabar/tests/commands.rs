//! The binary as it is run: help, completion, usage errors and configuration, without a cluster.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this is a test: it fails where it stands, and says so")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn cinnabar(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cinnabar"));
    command.args(arguments).current_dir(folder).env("CINNABAR_CONFIG", folder.join("contexts.toml")).env_remove("CINNABAR_CONTEXT");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_names_the_way_in_and_the_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let output = cinnabar(folder.path(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for word in ["cinnabar dev", "Exit codes", "secret", "status", "bench"] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    let create = text(&cinnabar(folder.path(), &["secret", "create", "--help"]).stdout);
    for scope in types::Scope::all() {
        assert!(create.contains(scope.name()), "{} is missing in\n{create}", scope.name());
    }
}

#[test]
fn usage_errors_exit_2_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["no-such-noun"][..],
        &["secret", "create"],
        &["secret", "create", "default/A", "--value", "x"],
        &["config", "check", "absent.toml", "--role", "edge"],
        &["secret", "edit", "default/A"],
    ] {
        let output = cinnabar(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn command_without_a_context_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = cinnabar(folder.path(), &["status"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("start `cinnabar dev`, or add one with `cinnabar context add`"), "{}", text(&output.stderr));
}

#[test]
fn reader_that_has_enough_ends_a_command_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["completion", "bash"][..], &["context", "list", "--format", "json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_cinnabar"));
        command.args(arguments).env("CINNABAR_CONFIG", folder.path().join("contexts.toml")).stdout(writer);
        let output = command.stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(141), ""), "{arguments:?}");
    }
    // What is done is done: a cluster is founded also where nobody reads how to go on.
    let at = |name: &str| folder.path().join(name);
    fs::write(at("control.toml"), format!("[node]\nname = \"control-1\"\ndata_dir = {:?}\n", at("data"))).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_cinnabar"));
    command.args(["cluster", "init", "--recovery-key-file"]).arg(at("recovery.key")).arg("--config").arg(at("control.toml"));
    command.env("CINNABAR_CONFIG", at("contexts.toml")).stdout(writer).stderr(std::process::Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    assert!(at("data/founding").exists());
}

#[test]
fn completion_is_printed_for_every_shell() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = cinnabar(folder.path(), &["completion", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("cinnabar"), "{shell}");
    }
}

#[test]
fn config_check_names_file_line_and_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let check = |content: &str| {
        fs::write(&file, content).unwrap();
        let output = cinnabar(folder.path(), &["config", "check", "edge.toml", "--role", "edge"]);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    assert_eq!(check("").0, Some(0));
    let (code, said) = check("[log]\nformat = \"json\"\nfiltre = \"info\"\n");
    assert_eq!(code, Some(2));
    assert!(said.contains("edge.toml:3:1") && said.contains("filtre"), "{said}");
    let (code, said) = check("[node]\nid = 0\nname = \"edge-7\"\ndata_dir = \"data\"\n");
    assert_eq!(code, Some(2));
    assert!(said.contains("node.id"), "{said}");
}

#[test]
fn config_show_prints_what_check_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("control.toml");
    fs::write(&file, "[node]\nid = 9\nname = \"control-9\"\ndata_dir = \"data\"\n").unwrap();
    let shown = cinnabar(folder.path(), &["config", "show", "control.toml", "--role", "control"]);
    assert!(shown.status.success());
    assert!(text(&shown.stdout).contains("name = \"control-9\""));
    fs::write(&file, &shown.stdout).unwrap();
    assert!(cinnabar(folder.path(), &["config", "check", "control.toml", "--role", "control"]).status.success());
}

#[test]
fn context_is_checked_before_it_is_kept_and_each_change_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let prepared = cinnabar(folder.path(), &["dev", "--prepare", "--data", "dev"]);
    assert!(prepared.status.success(), "{}", text(&prepared.stderr));
    fs::write(folder.path().join("no.pem"), "nothing\n").unwrap();
    let add = |control: &str, ca: &str, token: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cinnabar"));
        command.args(["context", "add", "prod", "--control", control, "--ca", ca]).current_dir(folder.path());
        command.env("CINNABAR_CONFIG", folder.path().join("contexts.toml")).stdin(std::process::Stdio::piped());
        let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), token.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let good = ("control-1.example:7400", "dev/tls/ca.pem", "cbo_of_somebody\n");
    for (control, ca, token, said) in [
        ("control-1.example", good.1, good.2, "control-1.example"),
        (good.0, "no.pem", good.2, "CA certificate"),
        (good.0, "absent.pem", good.2, "cannot read absent.pem"),
        (good.0, good.1, "two words", "the token holds characters"),
        (good.0, good.1, "", "no token came"),
    ] {
        let (code, stderr) = add(control, ca, token);
        assert!(code == Some(2) && stderr.contains(said) && !stderr.contains("two words"), "{control} {ca}: {stderr}");
        assert!(!folder.path().join("contexts.toml").exists());
    }
    let (code, stderr) = add(good.0, good.1, good.2);
    assert!(code == Some(0) && stderr.contains("added prod, in force") && !stderr.contains("cbo_"), "{stderr}");
    let removed = cinnabar(folder.path(), &["context", "remove", "prod"]);
    assert!(text(&removed.stderr).contains("none is in force now"), "{}", text(&removed.stderr));
}
