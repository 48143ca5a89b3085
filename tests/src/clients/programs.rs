//! wrangler, Node and Python, as `scripts/clients` installed them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::{Run, run};

/// A wrangler that `scripts/clients` installs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrangler {
    /// The last one that Node 20 runs.
    Old,
    /// The newest, with the Node that it wants.
    New,
}

impl Wrangler {
    /// How it is called.
    pub fn call(self) -> (PathBuf, Vec<String>) {
        (node(self), vec![wrangler(self).display().to_string()])
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::Old => "wrangler-4.86.0",
            Self::New => "wrangler-4.164.0",
        }
    }
}

/// Programs of a user who has a folder, and nothing else, of their own.
pub struct Programs {
    home: PathBuf,
    environment: Vec<(String, String)>,
}

impl Programs {
    /// A user whose folder is `home`, which is made, with `ca_pem` as an authority to believe.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(home: &Path, ca_pem: &str) -> Self {
        fs::create_dir_all(home).expect("a folder");
        let ca = home.join("ca.pem");
        fs::write(&ca, ca_pem).expect("a file");
        let (text, ca) = (home.display().to_string(), ca.display().to_string());
        let path = std::env::var("PATH").expect("programs are found by PATH");
        let own = [
            ("PATH", path.as_str()),
            ("HOME", &text),
            ("XDG_CONFIG_HOME", &text),
            ("XDG_CACHE_HOME", &text),
            ("WRANGLER_CACHE_DIR", &text),
            // Nothing goes anywhere but to the cluster, and nothing asks.
            ("WRANGLER_SEND_METRICS", "false"),
            ("WRANGLER_SEND_ERROR_REPORTS", "false"),
            ("WRANGLER_HIDE_BANNER", "true"),
            ("WRANGLER_NO_SKILLS_UPDATE_PROMPTS", "true"),
            ("DO_NOT_TRACK", "1"),
            ("CI", "1"),
            ("NO_COLOR", "1"),
            // What would go somewhere else by itself ends here.
            ("HTTP_PROXY", "http://127.0.0.1:1"),
            ("HTTPS_PROXY", "http://127.0.0.1:1"),
            ("NO_PROXY", "127.0.0.1,localhost"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("NODE_EXTRA_CA_CERTS", &ca),
            ("SSL_CERT_FILE", &ca),
            ("CURL_CA_BUNDLE", &ca),
        ];
        let environment = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { home: home.to_owned(), environment }
    }

    /// The same user without this in their environment.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(key, _)| key != name);
        self
    }

    /// What programs find in their environment besides, from now on; a later value counts.
    #[must_use]
    pub fn with(mut self, environment: &[(&str, &str)]) -> Self {
        self.environment.extend(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// The folder in which programs run.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Runs wrangler.
    pub async fn wrangler(&self, which: Wrangler, stdin: &[u8], arguments: &[&str]) -> Run {
        let mut command = self.command(&node(which));
        command.arg(wrangler(which)).args(arguments);
        run(&mut command, &format!("{which:?} wrangler {}", arguments.join(" ")), stdin, &self.home).await
    }

    /// Runs a script of bash in which `wrangler`, and `npx wrangler`, is `program` with `arguments`.
    pub async fn shell(&self, (program, arguments): &(PathBuf, Vec<String>), stdin: &[u8], script: &str) -> Run {
        let shims = tempfile::tempdir_in(&self.home).expect("a folder");
        let words: Vec<_> = arguments.iter().map(|argument| format!(" '{argument}'")).collect();
        let call = format!("exec '{}'{}", program.display(), words.concat());
        put(&shims.path().join("wrangler"), &format!("#!/usr/bin/env bash\n{call} \"$@\"\n"));
        put(&shims.path().join("npx"), &format!("#!/usr/bin/env bash\n[[ $1 == wrangler ]] || exit 64\n{call} \"${{@:2}}\"\n"));
        let mut command = self.command(Path::new("bash"));
        let path = std::env::var("PATH").expect("programs are found by PATH");
        command.env("PATH", format!("{}:{path}", shims.path().display())).args(["-euo", "pipefail", "-c", script]);
        run(&mut command, script, stdin, &self.home).await
    }

    /// Runs a script of Node's that uses Cloudflare's library.
    pub async fn node(&self, script: &str) -> Run {
        let folder = installed("node-7.3.0");
        let file = self.home.join("script.mjs");
        fs::write(&file, script).expect("a script");
        // A module is looked for beside the script that asks for it.
        let modules = self.home.join("node_modules");
        if !modules.exists() {
            std::os::unix::fs::symlink(folder.join("node_modules"), &modules).expect("a link");
        }
        run(self.command(Path::new("node")).arg(&file), "node", b"", &self.home).await
    }

    /// Runs a script of Python's that uses a version of Cloudflare's library.
    pub async fn python(&self, version: &str, script: &str) -> Run {
        let folder = installed(&format!("python-{version}"));
        let file = self.home.join(format!("script-{version}.py"));
        fs::write(&file, script).expect("a script");
        let mut command = self.command(Path::new("python3"));
        run(command.env("PYTHONPATH", folder).arg(&file), "python3", b"", &self.home).await
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        command.current_dir(&self.home).env_clear().envs(environment);
        command
    }
}

fn wrangler(which: Wrangler) -> PathBuf {
    installed(which.folder()).join("node_modules/wrangler/bin/wrangler.js")
}

fn node(which: Wrangler) -> PathBuf {
    match which {
        Wrangler::Old => PathBuf::from("node"),
        Wrangler::New => {
            let modules = installed(which.folder()).join("node_modules");
            let names = fs::read_dir(&modules).expect("a folder").map(|entry| entry.expect("an entry").path());
            let own = names.filter(|path| path.join("bin/node").is_file() && path.join("include/node/node_version.h").is_file());
            own.map(|path| path.join("bin/node")).next().expect("scripts/clients installs Node beside the newest wrangler")
        }
    }
}

/// A folder that `scripts/clients` fills: `target/clients/NAME`, where this program's own build is `target/PROFILE`.
///
/// # Panics
/// When it is not there.
fn installed(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the system knows this test's executable");
    let target = own.ancestors().nth(3).expect("a test lies in target/PROFILE/deps");
    let folder = target.join("clients").join(name);
    assert!(folder.join("installed").is_file(), "{} is missing: run scripts/clients, then run the test again", folder.display());
    folder
}

fn put(file: &Path, script: &str) {
    fs::write(file, script).expect("a script");
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a script can be run");
}
