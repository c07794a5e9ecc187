//! Programs of others, as tests play them: loaded from instructions, attached by a link that lives as long as its descriptor.
//!
//! Only for tests: nothing of the product turns this feature on.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use crate::bpf::{self, ElementAttr, Hook, LinkAttr};

const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const PROG_SCHED_CLS: u32 = 3;
const PROG_CGROUP_SOCK_ADDR: u32 = 18;
const PROG_SK_LOOKUP: u32 = 30;
/// `ENOTSUPP`, which is no errno for programs, and yet what the kernel says.
const NOT_SUPPORTED: i32 = 524;
/// More rows than any map of ours may have: whoever changes it meanwhile could lead one round for ever.
const MOST_ROWS: usize = 1 << 22;
const LICENSE: &[u8] = b"GPL\0";

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

/// One instruction: code, destination and source register, offset, immediate (RFC 9669 section 3).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// Of its parts.
    pub const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        Self { code, registers: destination | (source << 4), offset, immediate }
    }
}

/// Loads a program for a hook.
pub fn load(hook: Hook, name: &str, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let kind = if hook == Hook::SkLookup { PROG_SK_LOOKUP } else { PROG_CGROUP_SOCK_ADDR };
    load_as(kind, hook as u32, name, instructions)
}

/// Loads a classifier, for [`crate::bpf::attach_egress`].
pub fn load_classifier(name: &str, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    load_as(PROG_SCHED_CLS, 0, name, instructions)
}

fn load_as(kind: u32, attach_type: u32, name: &str, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        kind,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        attach_type,
        ..LoadAttr::default()
    };
    for (to, from) in attr.name.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    call(BPF_PROG_LOAD, &mut attr)
}

/// Writes a row of a map whose keys and values have the sizes of these, which is the caller's to know.
pub fn write_row(map: &impl AsFd, key: u64, value: u32) -> io::Result<()> {
    let mut attr = ElementAttr {
        map: map.as_fd().as_raw_fd().unsigned_abs(),
        key: std::ptr::from_ref(&key) as u64,
        value: std::ptr::from_ref(&value) as u64,
        ..ElementAttr::default()
    };
    call_bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// The keys of a map; none for kinds that cannot be gone through, such as the storage of sockets.
pub fn keys(map: &impl AsFd) -> io::Result<Option<Vec<Vec<u8>>>> {
    let size = bpf::map_info(map)?.key_size as usize;
    if size == 0 {
        return Ok(None);
    }
    let mut keys: Vec<Vec<u8>> = Vec::new();
    while keys.len() < MOST_ROWS {
        let mut next = vec![0_u8; size];
        let mut attr = ElementAttr {
            map: map.as_fd().as_raw_fd().unsigned_abs(),
            // Without a key it is the first that comes.
            key: keys.last().map_or(0, |key| key.as_ptr() as u64),
            value: next.as_mut_ptr() as u64,
            ..ElementAttr::default()
        };
        match call_bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) {
            Ok(_) => keys.push(next),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) if matches!(error.raw_os_error(), Some(NOT_SUPPORTED | libc::EOPNOTSUPP)) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Some(keys))
}

/// Attaches a program to a cgroup's directory or a namespace.
pub fn attach(program: &impl AsFd, target: &impl AsFd, hook: Hook) -> io::Result<OwnedFd> {
    let number = |fd: &dyn Fn() -> i32| fd().unsigned_abs();
    let mut attr = LinkAttr {
        program: number(&|| program.as_fd().as_raw_fd()),
        target: number(&|| target.as_fd().as_raw_fd()),
        attach_type: hook as u32,
        flags: 0,
    };
    call(BPF_LINK_CREATE, &mut attr)
}

fn call<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    let raw = i32::try_from(call_bpf(command, attr)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn call_bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: every `T` of this module is a repr(C) head of `union bpf_attr` (the kernel takes what is beyond its size for
    // zero) without padding of its own, and the pointers in it are to memory that outlives the call.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), std::mem::size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

/// A packet socket that writes frames to an interface of the calling thread's network namespace, and says of each that it
/// has this protocol (`ETH_P_*`; 0 lets the kernel read it from the frame).
pub fn packet_socket(interface: u32, protocol: u16) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes numbers only.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: all zeroes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = interface.cast_signed();
    let length = std::mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is a sockaddr_ll of that length, which lives longer than the call.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// Has a packet socket write past the queues of its interface (`PACKET_QDISC_BYPASS`).
pub fn bypass_queues(socket: &impl AsFd) -> io::Result<()> {
    const PACKET_QDISC_BYPASS: libc::c_int = 20;
    switch_on(socket, PACKET_QDISC_BYPASS)
}

/// Has a packet socket read and write, in front of each frame, what is still to be done to it: its checksum, and being cut into
/// segments (`PACKET_VNET_HDR`, `struct virtio_net_hdr`, [`FRAME_HEADER`] bytes).
pub fn with_frame_headers(socket: &impl AsFd) -> io::Result<()> {
    const PACKET_VNET_HDR: libc::c_int = 15;
    switch_on(socket, PACKET_VNET_HDR)
}

/// What stands in front of each frame after [`with_frame_headers`].
pub const FRAME_HEADER: usize = 10;

fn switch_on(socket: &impl AsFd, option: libc::c_int) -> io::Result<()> {
    let value: libc::c_int = 1;
    let length = std::mem::size_of_val(&value) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the value is a c_int of that length, which lives longer than the call.
    let done = unsafe { libc::setsockopt(fd, libc::SOL_PACKET, option, (&raw const value).cast(), length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many frames a packet socket had no room for since this was last asked (`PACKET_STATISTICS`).
pub fn lost_frames(socket: &impl AsFd) -> io::Result<u32> {
    const PACKET_STATISTICS: libc::c_int = 6;
    // `struct tpacket_stats`: packets, and those dropped.
    let mut counts = [0_u32; 2];
    let mut length = std::mem::size_of_val(&counts) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes there, which is how many there are.
    let done = unsafe {
        let to = (&raw mut counts).cast();
        libc::getsockopt(fd, libc::SOL_PACKET, PACKET_STATISTICS, to, &raw mut length)
    };
    let [_, dropped] = counts;
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(dropped) }
}
