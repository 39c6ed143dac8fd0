//! A file system of one file, served by a thread of the test that counts what it is asked
//! (include/uapi/linux/fuse.h).
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::libc;

/// Operation codes.
pub const LOOKUP: u32 = 1;
pub const GETATTR: u32 = 3;
pub const OPEN: u32 = 14;
pub const STATFS: u32 = 17;
const FORGET: u32 = 2;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

type Asked = Arc<Mutex<BTreeMap<u32, u32>>>;

/// A mounted file system; unmounted when dropped, or with its process's mount namespace.
pub struct Fuse {
    place: PathBuf,
    asked: Asked,
}

impl Fuse {
    /// Mounts it at `place`, in a mount namespace that this thread alone lives in.
    ///
    /// # Errors
    /// Where this process may not, or the kernel has no FUSE: the test is skipped then.
    #[allow(
        unsafe_code,
        clippy::multiple_unsafe_ops_per_block,
        reason = "unshare and mount have no safe form here"
    )]
    pub fn mount(place: &Path) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let number = device.as_raw_fd();
        let options = CString::new(format!("fd={number},rootmode=40000,user_id=0,group_id=0"))?;
        let target = CString::new(place.to_str().unwrap_or_default())?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        let (name, none) = (c"fdpost-test".as_ptr(), std::ptr::null::<libc::c_void>());
        // SAFETY: unshare touches no memory; the strings end in a zero byte and live through the calls.
        unsafe {
            Errno::result(libc::unshare(libc::CLONE_NEWNS))?;
            Errno::result(libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), private, none))?;
            let options = options.as_ptr().cast();
            Errno::result(libc::mount(name, target.as_ptr(), c"fuse".as_ptr(), flags, options))?;
        }
        let asked = Asked::default();
        let counts = Arc::clone(&asked);
        // Ends when the file system is unmounted.
        thread::spawn(move || serve(device, &counts));
        Ok(Self { place: place.to_owned(), asked })
    }

    pub fn file(&self) -> PathBuf {
        self.place.join("file")
    }

    /// How often each operation was asked for since the last time.
    pub fn asked(&self) -> BTreeMap<u32, u32> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Fuse {
    #[allow(unsafe_code, reason = "umount2 has no safe form here")]
    fn drop(&mut self) {
        let Ok(target) = CString::new(self.place.to_str().unwrap_or_default()) else { return };
        // SAFETY: the string ends in a zero byte and lives through the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

fn serve(mut device: File, asked: &Asked) {
    let mut request = vec![0; 1 << 20];
    while let Ok(length) = device.read(&mut request) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap());
        // `struct fuse_in_header`: len, opcode, unique, nodeid, ... of 40 bytes.
        assert!(length >= 40);
        let (operation, unique, node) = (word(4), long(8), long(16));
        *asked.lock().unwrap_or_else(PoisonError::into_inner).entry(operation).or_default() += 1;
        let answer = match operation {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            // `struct fuse_init_out`: version 7.31, and what else is zero is the least.
            INIT => Ok(words(&[7, 31, 0, 0, 0, 4096, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            // `struct fuse_entry_out`: an inode, and that nothing of it may be kept in mind.
            LOOKUP => Ok([words(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]), attributes(2)].concat()),
            // `struct fuse_attr_out`: valid for no time at all.
            GETATTR => Ok([words(&[0, 0, 0, 0]), attributes(node)].concat()),
            // `struct fuse_open_out`.
            OPEN => Ok(words(&[0, 0, 0, 0])),
            RELEASE => Ok(Vec::new()),
            _ => Err(Errno::ENOSYS),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-(errno as i32), Vec::new()),
        };
        // `struct fuse_out_header`: len, error, unique.
        let length = u32::try_from(16 + body.len()).unwrap();
        let head = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes()].concat();
        if device.write_all(&[head, body].concat()).is_err() {
            return;
        }
    }
}

/// `struct fuse_attr` of 88 bytes: the root is a directory, the rest is a file of 100 bytes.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == 1 { 0o040_755 } else { 0o100_644 };
    let mut fields = [0_u32; 22];
    fields[0] = node as u32; // ino
    fields[2] = 100; // size
    fields[15] = mode;
    fields[16] = 1; // nlink
    words(&fields)
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}
