//! What the kernel says of BPF objects, and the calls for which the loader's library has no words: bpf(2).
//!
//! Each function is one call (or a walk of one kind of call) and returns its error as it is. Objects are descriptors: an
//! object that is not pinned lives as long as somebody holds one.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

// Commands of bpf(2), `enum bpf_cmd` of `linux/bpf.h`.
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;
const BPF_LINK_DETACH: libc::c_int = 34;

/// `BPF_SK_LOOKUP` of `enum bpf_attach_type`.
const BPF_SK_LOOKUP: u32 = 36;
/// `BPF_CGROUP_SETSOCKOPT` of `enum bpf_attach_type`.
const BPF_CGROUP_SETSOCKOPT: u32 = 22;
/// `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
const BPF_TCX_EGRESS: u32 = 47;
/// `BPF_F_BEFORE`: without saying what, before all that is there.
const BPF_F_BEFORE: u32 = 1 << 3;
/// `BPF_LINK_TYPE_CGROUP`, `BPF_LINK_TYPE_NETNS` and `BPF_LINK_TYPE_TCX` of `enum bpf_link_type`.
const LINK_CGROUP: u32 = 3;
const LINK_NETNS: u32 = 5;
const LINK_TCX: u32 = 11;

/// Maps of one program that are told.
const MAX_MAPS: usize = 16;
/// Programs on one hook that are told; the kernel takes no more than 64 on a cgroup or a namespace.
const MAX_PROGRAMS: usize = 64;
/// Bytes of a name, `BPF_OBJ_NAME_LEN`.
const NAME: usize = 16;

/// The head of `union bpf_attr` for pins.
#[repr(C)]
#[derive(Default)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct ElementAttr {
    pub(crate) map: u32,
    pub(crate) padding: u32,
    pub(crate) key: u64,
    pub(crate) value: u64,
    pub(crate) flags: u64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct LinkAttr {
    pub(crate) program: u32,
    pub(crate) target: u32,
    pub(crate) attach_type: u32,
    pub(crate) flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    program_attach_flags: u64,
    links: u64,
    link_attach_flags: u64,
    /// Which the kernel writes for some hooks, however short it is told that this is.
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

/// The head of `struct bpf_link_info`.
#[repr(C)]
#[derive(Default)]
struct RawLink {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    /// For a cgroup its id, then the hook; for a namespace its inode, then the hook; for an interface its index, then the hook.
    target: [u32; 3],
    rest: [u32; 7],
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct RawMap {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; NAME],
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct RawProgram {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    code: [u64; 2],
    loaded_at: u64,
    user: u32,
    map_count: u32,
    maps: u64,
    name: [u8; NAME],
}

/// Where programs are attached, of `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Hook {
    /// connect(2) to an IPv4 address, on a cgroup.
    Connect4 = 10,
    /// connect(2) to an IPv6 address, on a cgroup.
    Connect6 = 11,
    /// sendmsg(2) of a datagram to an IPv4 address, on a cgroup.
    Sendmsg4 = 14,
    /// sendmsg(2) of a datagram to an IPv6 address, on a cgroup.
    Sendmsg6 = 15,
    /// The look-up of a socket for a packet, on a network namespace.
    SkLookup = BPF_SK_LOOKUP,
}

impl Hook {
    /// Those on a cgroup.
    pub const CGROUP: [Self; 4] = [Self::Connect4, Self::Connect6, Self::Sendmsg4, Self::Sendmsg6];

    /// Its usual name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::SkLookup => "sk_lookup",
        }
    }
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A cgroup, by its id: the inode of its directory.
    Cgroup(u64),
    /// A network namespace, by the inode of its file.
    Netns(u32),
    /// An interface, by its index in its namespace.
    Interface(u32),
    /// Nothing any more: what it was attached to is gone, or somebody detached it by force.
    Nothing,
    /// Something that we do not attach to.
    Other,
}

/// A link as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Never used twice since boot, as good as.
    pub id: u32,
    /// The attached program.
    pub program: u32,
    /// What it is attached to.
    pub target: Target,
    /// On which hook, as the kernel numbers them; 0 where that has no meaning.
    pub hook: u32,
}

/// A map as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// Never used twice since boot, as good as.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Its name, cut to 15 bytes.
    pub name: String,
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: every `T` of this module is a repr(C) head of `union bpf_attr` (the kernel takes what is beyond its size for
    // zero) without padding of its own, and the pointers in it are to memory that outlives the call.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), mem::size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

fn descriptor(done: libc::c_long) -> io::Result<OwnedFd> {
    let raw = i32::try_from(done).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn number(fd: &impl AsFd) -> u32 {
    // An open descriptor is never negative.
    fd.as_fd().as_raw_fd().unsigned_abs()
}

/// Opens what is pinned at `path`.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = PinAttr { path: path.as_ptr() as u64, ..PinAttr::default() };
    descriptor(bpf(BPF_OBJ_GET, &mut attr)?)
}

/// Pins an object at `path`, where nothing may be.
pub fn pin(object: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = PinAttr { path: path.as_ptr() as u64, fd: number(object), flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens a loaded program.
pub fn program(id: u32) -> io::Result<OwnedFd> {
    descriptor(bpf(BPF_PROG_GET_FD_BY_ID, &mut IdAttr { id, ..IdAttr::default() })?)
}

/// Opens a map.
pub fn map(id: u32) -> io::Result<OwnedFd> {
    descriptor(bpf(BPF_MAP_GET_FD_BY_ID, &mut IdAttr { id, ..IdAttr::default() })?)
}

/// Attaches an sk_lookup program to a network namespace; it is detached when the last descriptor and pin of the link are
/// gone (Linux 5.9).
pub fn attach_lookup(program: &impl AsFd, netns: &impl AsFd) -> io::Result<OwnedFd> {
    let (program, target) = (number(program), number(netns));
    let mut attr = LinkAttr { program, target, attach_type: BPF_SK_LOOKUP, flags: 0 };
    descriptor(bpf(BPF_LINK_CREATE, &mut attr)?)
}

/// Attaches a setsockopt program to a cgroup's directory; it is detached when the last descriptor and pin of the link are gone
/// (Linux 5.7).
pub fn attach_setsockopt(program: &impl AsFd, cgroup: &impl AsFd) -> io::Result<OwnedFd> {
    let (program, target) = (number(program), number(cgroup));
    let mut attr = LinkAttr { program, target, attach_type: BPF_CGROUP_SETSOCKOPT, flags: 0 };
    descriptor(bpf(BPF_LINK_CREATE, &mut attr)?)
}

/// Attaches a classifier to the way out of an interface of the calling thread's network namespace, before all that is
/// attached there; it is detached when the last descriptor and pin of the link are gone (Linux 6.6).
pub fn attach_egress(program: &impl AsFd, interface: u32) -> io::Result<OwnedFd> {
    let program = number(program);
    let mut attr = LinkAttr { program, target: interface, attach_type: BPF_TCX_EGRESS, flags: BPF_F_BEFORE };
    descriptor(bpf(BPF_LINK_CREATE, &mut attr)?)
}

/// Detaches a link from what it is attached to, whoever holds it, as `bpftool link detach` does (Linux 5.9).
pub fn detach(link: &impl AsFd) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &mut IdAttr { id: number(link), ..IdAttr::default() }).map(drop)
}

/// What the kernel says of a link (Linux 5.8).
pub fn link_info(link: &impl AsFd) -> io::Result<LinkInfo> {
    let mut raw = RawLink::default();
    info(link, &mut raw)?;
    let [low, high, third] = raw.target;
    let hook = match raw.kind {
        LINK_CGROUP => third,
        LINK_NETNS | LINK_TCX => high,
        _ => 0,
    };
    let target = match raw.kind {
        LINK_CGROUP => match u64::from_ne_bytes(joined(low, high)) {
            0 => Target::Nothing,
            id => Target::Cgroup(id),
        },
        LINK_NETNS if low == 0 => Target::Nothing,
        LINK_NETNS => Target::Netns(low),
        LINK_TCX if low == 0 => Target::Nothing,
        LINK_TCX => Target::Interface(low),
        _ => Target::Other,
    };
    Ok(LinkInfo { id: raw.id, program: raw.program, target, hook })
}

fn joined(first: u32, second: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

/// Whether an object is a map, and not a link or a program.
pub fn is_map(object: &impl AsFd) -> io::Result<bool> {
    let path = format!("/proc/self/fd/{}", object.as_fd().as_raw_fd());
    Ok(std::fs::read_link(path)?.as_os_str() == "anon_inode:bpf-map")
}

/// What the kernel says of a map.
pub fn map_info(map: &impl AsFd) -> io::Result<MapInfo> {
    let mut raw = RawMap::default();
    info(map, &mut raw)?;
    Ok(MapInfo { id: raw.id, key_size: raw.key_size, name: text(raw.name) })
}

/// Ids of the maps that a program uses, at most 16.
pub fn maps_of(program: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MAX_MAPS];
    let mut raw =
        RawProgram { map_count: MAX_MAPS as u32, maps: ids.as_mut_ptr() as u64, ..RawProgram::default() };
    info(program, &mut raw)?;
    Ok(ids.into_iter().take(raw.map_count as usize).collect())
}

/// The name of a program, cut to 15 bytes.
pub fn name_of(program: &impl AsFd) -> io::Result<String> {
    let mut raw = RawProgram::default();
    info(program, &mut raw)?;
    Ok(text(raw.name))
}

fn text(name: [u8; NAME]) -> String {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME);
    String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned()
}

/// Ids of the programs on a hook of a cgroup or a namespace, in the order in which they run; by whatever means they were
/// attached (Linux 4.15, for namespaces 5.9).
pub fn attached(target: &impl AsFd, hook: Hook) -> io::Result<Vec<u32>> {
    query(number(target), hook as u32)
}

/// The same of the links on the way out of an interface of the calling thread's network namespace (Linux 6.6); classifiers
/// of a qdisc are none of them.
pub fn attached_egress(interface: u32) -> io::Result<Vec<u32>> {
    query(interface, BPF_TCX_EGRESS)
}

/// Whether the kernel takes links on the way out of interfaces (Linux 6.6); it is asked about lo, which every namespace has.
pub fn has_egress_links() -> bool {
    const LOOPBACK: u32 = 1;
    !matches!(attached_egress(LOOPBACK), Err(error) if error.kind() == io::ErrorKind::InvalidInput)
}

fn query(target: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target,
        attach_type,
        programs: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..QueryAttr::default()
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    Ok(ids.into_iter().take(attr.count as usize).collect())
}

fn info<T>(object: &impl AsFd, into: &mut T) -> io::Result<()> {
    let length = mem::size_of::<T>() as u32;
    let mut attr = InfoAttr { fd: number(object), length, info: std::ptr::from_mut(into) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// Removes a row of a map; whether it was there.
pub fn delete_row(map: &impl AsFd, key: &[u8]) -> io::Result<bool> {
    if map_info(map)?.key_size as usize != key.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the map has keys of another size"));
    }
    let mut attr = ElementAttr { map: number(map), key: key.as_ptr() as u64, ..ElementAttr::default() };
    match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Every link on the machine. One that goes meanwhile is left out.
pub fn links() -> io::Result<Vec<LinkInfo>> {
    let mut found = Vec::new();
    let mut attr = IdAttr::default();
    loop {
        match bpf(BPF_LINK_GET_NEXT_ID, &mut attr) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            other => other?,
        };
        let id = attr.next;
        let mut by_id = IdAttr { id, ..IdAttr::default() };
        if let Ok(opened) = bpf(BPF_LINK_GET_FD_BY_ID, &mut by_id) {
            found.push(link_info(&descriptor(opened)?)?);
        }
        attr = IdAttr { id, ..IdAttr::default() };
    }
}

/// Whether a map with this id is still there.
pub fn map_exists(id: u32) -> io::Result<bool> {
    match map(id) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
