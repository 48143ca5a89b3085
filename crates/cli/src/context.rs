//! Contexts: which cluster, which account, which token. One file per user, mode 0600.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Why contexts could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Neither variable names a place for the file.
    #[error("no place for the context file: set HOME, XDG_CONFIG_HOME or CINNABAR_CONFIG")]
    NoPlace,
    /// The file can be read by others.
    #[error("{} can be read by others (mode {mode:o}) and holds tokens: run `chmod 600 {0}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is not valid.
    #[error("{} is not a context file: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, without the text of the line, which could hold a token.
        reason: String,
    },
    /// The disk said no.
    #[error("cannot {operation} {}", path.display())]
    Disk {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No such context.
    #[error("no context {name:?}; known are: {known}. Add one with `cinnabar context add`, or start `cinnabar dev`")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// None was chosen.
    #[error("no context in force: start `cinnabar dev`, or add one with `cinnabar context add`")]
    None,
}

/// One cluster and credential.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The control node, as HOST:PORT.
    pub control: String,
    /// The cluster's CA certificate, PEM.
    pub ca: String,
    /// The operator's token. Shown by nothing.
    pub token: String,
    /// The account that commands use, as 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Edges that `get` and `watch` can ask, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<EdgeContext>,
    /// Where all control nodes are, as the cluster told last: asked when `control` does not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

impl Context {
    /// Every control node's address, the context's own first.
    pub fn addresses(&self) -> Vec<String> {
        let others = self.members.iter().filter(|address| **address != self.control);
        std::iter::once(&self.control).chain(others).cloned().collect()
    }
}

/// An edge that can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeContext {
    /// Its name.
    pub name: String,
    /// Its UNIX socket.
    pub socket: PathBuf,
}

/// All contexts of a user.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// The file's place: `$CINNABAR_CONFIG`, else below `$XDG_CONFIG_HOME`, else below `$HOME/.config`.
    ///
    /// # Errors
    /// [`ContextError::NoPlace`].
    pub fn path() -> Result<PathBuf, ContextError> {
        if let Some(file) = std::env::var_os("CINNABAR_CONFIG") {
            return Ok(file.into());
        }
        let folder = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
        Ok(folder.ok_or(ContextError::NoPlace)?.join("cinnabar").join("contexts.toml"))
    }

    /// Reads the file; an absent one has no contexts.
    ///
    /// # Errors
    /// [`ContextError`] when the file is open to others, damaged or unreadable.
    pub fn load(path: &Path) -> Result<Self, ContextError> {
        let disk = |source| ContextError::Disk { operation: "read", path: path.into(), source };
        let mode = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(disk(error)),
            Ok(metadata) => metadata.permissions().mode() & 0o777,
        };
        if mode & 0o077 != 0 {
            return Err(ContextError::Open { path: path.into(), mode });
        }
        Self::parse(path, &fs::read_to_string(path).map_err(disk)?)
    }

    /// Reads the text of a file; `path` is for the error.
    ///
    /// # Errors
    /// [`ContextError::Invalid`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ContextError> {
        toml::from_str(text).map_err(|error| ContextError::Invalid { path: path.into(), reason: error.message().to_owned() })
    }

    /// Writes the file beside itself and renames it, so that a crash leaves the old or the new one.
    ///
    /// # Errors
    /// [`ContextError::Disk`].
    pub fn save(&self, path: &Path) -> Result<(), ContextError> {
        let disk = |source| ContextError::Disk { operation: "write", path: path.into(), source };
        let text = toml::to_string(self).map_err(|error| disk(io::Error::other(error)))?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(disk)?;
        }
        let beside = path.with_extension(format!("toml.{}", std::process::id()));
        let write = || {
            // Made anew, so that its mode is the one asked for, and nothing else is written through it.
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&beside);
            disk(error)
        })
    }

    /// The context called `name`, or the one in force.
    ///
    /// # Errors
    /// [`ContextError::Unknown`] or [`ContextError::None`].
    pub fn choose(&self, name: Option<&str>) -> Result<(&str, &Context), ContextError> {
        let name = name.or(self.current.as_deref()).ok_or(ContextError::None)?;
        let known = || self.contexts.keys().cloned().collect::<Vec<_>>().join(", ");
        self.contexts
            .get_key_value(name)
            .map(|(name, context)| (name.as_str(), context))
            .ok_or_else(|| ContextError::Unknown { name: name.into(), known: known() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/contexts.toml");
        (folder, path)
    }

    #[test]
    fn contexts_round_trip_in_a_file_that_only_the_owner_reads() {
        let (_folder, path) = place();
        let mut contexts = Contexts { current: Some("dev".into()), ..Contexts::default() };
        contexts.contexts.insert("dev".into(), Context { control: "127.0.0.1:1".into(), token: "t".into(), ..Context::default() });
        contexts.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Contexts::load(&path).unwrap();
        assert_eq!(read.choose(None).unwrap().1.control, "127.0.0.1:1");
        assert!(read.choose(Some("prod")).err().unwrap().to_string().contains("known are: dev"));
    }

    #[test]
    fn contexts_are_written_into_no_file_that_was_there_before() {
        let (folder, path) = place();
        Contexts::default().save(&path).unwrap();
        let trap = folder.path().join("readable by others");
        fs::write(&trap, "").unwrap();
        std::os::unix::fs::symlink(&trap, path.with_extension(format!("toml.{}", std::process::id()))).unwrap();
        let context = Context { token: "cbo_topsecret".into(), ..Context::default() };
        Contexts { contexts: [("dev".to_owned(), context)].into(), ..Contexts::default() }.save(&path).unwrap();
        assert_eq!(fs::read_to_string(&trap).unwrap(), "");
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
        assert!(Contexts::load(&path).unwrap().contexts.contains_key("dev"));
    }

    #[test]
    fn contexts_open_to_others_are_refused() {
        let (_folder, path) = place();
        Contexts::default().save(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Contexts::load(&path), Err(ContextError::Open { .. })));
    }

    #[test]
    fn contexts_damaged_are_refused_without_showing_the_line() {
        let (_folder, path) = place();
        Contexts::default().save(&path).unwrap();
        fs::write(&path, "[contexts.dev]\ntoken = cbo_topsecret\n").unwrap();
        let error = Contexts::load(&path).err().unwrap().to_string();
        assert!(!error.contains("topsecret"), "{error}");
    }
}
