//! The bare system calls that peers are made of. Descriptors are owned as soon as they are there;
//! nothing else is done that the calls do not need.

use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// A connected pair of sockets of this type.
pub fn pair(kind: i32) -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: the pointer is to room for two descriptors.
    let result = unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) };
    assert_eq!(result, 0, "socketpair: {}", Error::last_os_error());
    // SAFETY: socketpair just made both, and nobody else knows of them.
    ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) }).into()
}

/// CMSG_LEN for so many descriptors: what a receiver offers that wants no more than these.
pub const fn control_length(descriptors: usize) -> usize {
    // SAFETY: CMSG_LEN is arithmetic.
    unsafe { libc::CMSG_LEN((descriptors * size_of::<RawFd>()) as u32) as usize }
}

/// CMSG_SPACE for so many descriptors.
pub const fn control_space(descriptors: usize) -> usize {
    // SAFETY: CMSG_SPACE is arithmetic.
    unsafe { libc::CMSG_SPACE((descriptors * size_of::<RawFd>()) as u32) as usize }
}

/// Aligned as a `cmsghdr` must be.
#[derive(Default)]
pub struct Control(Vec<u64>);

impl Control {
    pub fn with_room(bytes: usize) -> Self {
        Self(vec![0; bytes.div_ceil(size_of::<u64>())])
    }
}

/// sendmsg(2) of the bytes; with control room, of the descriptors too, even if there are none.
pub fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[OwnedFd], control: Option<&mut Control>) {
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid `msghdr`: null pointers with lengths of 0.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    if let Some(control) = control {
        let space = control_space(descriptors.len());
        assert!(control.0.len() * size_of::<u64>() >= space);
        let message = control.0.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the buffer is aligned as a `cmsghdr` and holds one with room for the descriptors.
        unsafe {
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = control_length(descriptors.len());
            let data = libc::CMSG_DATA(message).cast::<RawFd>();
            for (place, descriptor) in descriptors.iter().enumerate() {
                data.add(place).write_unaligned(descriptor.as_raw_fd());
            }
        }
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control_length(descriptors.len());
    }
    // SAFETY: the header points to the bytes and the control buffer, alive during the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
    assert_eq!(usize::try_from(sent), Ok(bytes.len()), "sendmsg: {}", Error::last_os_error());
}

/// recvmsg(2) into the bytes, offering `room` bytes of `control`; says how many bytes came.
pub fn receive(
    socket: &OwnedFd,
    bytes: &mut [u8],
    control: &mut Control,
    room: usize,
    descriptors: &mut Vec<OwnedFd>,
) -> usize {
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid `msghdr`: null pointers with lengths of 0.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    assert!(control.0.len() * size_of::<u64>() >= room);
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = room;
    let flags = libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points to the bytes and the control buffer, alive during the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(length).unwrap_or_else(|_| panic!("recvmsg: {}", Error::last_os_error()));
    let cut = libc::MSG_TRUNC | libc::MSG_CTRUNC;
    assert_eq!(header.msg_flags & cut, 0, "the kernel cut what was sent");
    if header.msg_controllen >= control_length(1) {
        let message = control.0.as_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the kernel wrote a whole control message there; its length says how many
        // descriptors it names, and nobody else owns them.
        unsafe {
            assert_eq!(((*message).cmsg_level, (*message).cmsg_type), (libc::SOL_SOCKET, libc::SCM_RIGHTS));
            let count = ((*message).cmsg_len - control_length(0)) / size_of::<RawFd>();
            let data = libc::CMSG_DATA(message).cast::<RawFd>();
            descriptors
                .extend((0..count).map(|place| OwnedFd::from_raw_fd(data.add(place).read_unaligned())));
        }
    }
    length
}

/// send(2).
pub fn send_plain(socket: &OwnedFd, bytes: &[u8]) {
    // SAFETY: the pointer is to as many bytes.
    let sent =
        unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    assert_eq!(usize::try_from(sent), Ok(bytes.len()), "send: {}", Error::last_os_error());
}

/// recv(2).
pub fn receive_plain(socket: &OwnedFd, bytes: &mut [u8]) -> usize {
    // SAFETY: the pointer is to as many bytes.
    let length = unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    usize::try_from(length).unwrap_or_else(|_| panic!("recv: {}", Error::last_os_error()))
}

/// poll(2) until something can be read; `None`: only looks.
pub fn poll(socket: &OwnedFd, timeout: Option<i32>) {
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one entry.
    let ready = unsafe { libc::poll(ptr::from_mut(&mut entry), 1, timeout.unwrap_or(-1)) };
    assert!(ready >= 0, "poll: {}", Error::last_os_error());
}

/// A descriptor that costs the kernel as little as any: of /dev/null.
pub fn descriptor() -> OwnedFd {
    std::fs::File::open("/dev/null").expect("/dev/null opens").into()
}

/// fstat(2), its answer unused.
pub fn fstat(descriptor: &OwnedFd) {
    // SAFETY: all zeros is a valid `stat`.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a `stat` that is alive during the call.
    let result = unsafe { libc::fstat(descriptor.as_raw_fd(), &raw mut status) };
    assert_eq!(result, 0, "fstat: {}", Error::last_os_error());
    std::hint::black_box(status);
}
