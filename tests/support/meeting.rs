//! Where tests meet: directories and names that are theirs alone.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use fdpost::Address;

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn unique() -> String {
    format!("fdpost-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// An abstract name that nobody has.
pub fn abstract_name() -> Address {
    Address::abstract_name(unique())
}

/// A new directory, removed with all that is in it.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        // /tmp whatever TMPDIR says: a socket's path must be short.
        let template = Path::new("/tmp").join("fdpost-XXXXXX");
        Self(nix::unistd::mkdtemp(&template).unwrap())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn is_empty(&self) -> bool {
        self.names().is_empty()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}
