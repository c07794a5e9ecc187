//! Socket options that neither the standard library nor `socket2` knows.
//!
//! Each function is one `setsockopt(2)` or `getsockopt(2)` and returns its error as it is.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _};

use nix::sys::socket::sockopt::{Ip6tOriginalDst, OriginalDst};
use nix::sys::socket::{SockaddrLike as _, getsockname, getsockopt};

/// `SO_NETNS_COOKIE` (`asm-generic/socket.h`, Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;

fn set(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open while it is borrowed, the pointer is to a live c_int and the length is its size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get<T: Copy + Default>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut length = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed; `value` is writable for `length` bytes, and any bytes
    // the kernel writes make a valid T, for only integers are asked for in this module.
    let done = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Leaves the choice of the source port to `connect(2)`, so that a port is taken per destination and not for all
/// (`IP_BIND_ADDRESS_NO_PORT`, Linux 4.2; it counts for IPv6 sockets as well).
pub fn set_bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// The cookie of the network namespace that the socket belongs to (`SO_NETNS_COOKIE`, Linux 5.14).
pub fn netns_cookie(socket: &impl AsFd) -> io::Result<u64> {
    get::<u64>(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE)
}

/// The socket's mark (`SO_MARK`).
pub fn mark(socket: &impl AsFd) -> io::Result<u32> {
    get::<u32>(socket, libc::SOL_SOCKET, libc::SO_MARK)
}

/// Makes the kernel take a netlink question at its word, and list what was asked for only (`NETLINK_GET_STRICT_CHK`, Linux
/// 4.20).
pub fn set_netlink_strict(socket: &impl AsFd) -> io::Result<()> {
    set(socket, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 1)
}

/// Whether the socket is a listening one (`SO_ACCEPTCONN`).
pub fn is_listening(socket: &impl AsFd) -> io::Result<bool> {
    Ok(get::<libc::c_int>(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0)
}

/// Has each datagram come with the address that it was sent to (`IP_PKTINFO`, `IPV6_RECVPKTINFO`).
pub fn set_packet_info(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    if v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Where a connection was going that netfilter's `REDIRECT` has brought to this socket (`SO_ORIGINAL_DST`,
/// `IP6T_SO_ORIGINAL_DST`): the connection tracker knows. Of one that came by itself, its local address.
pub fn original_destination(socket: &impl AsFd) -> io::Result<SocketAddr> {
    let own: nix::sys::socket::SockaddrStorage = getsockname(socket.as_fd().as_raw_fd())?;
    let is_v6 = own.family() == Some(nix::sys::socket::AddressFamily::Inet6);
    let mapped = own.as_sockaddr_in6().is_some_and(|own| own.ip().to_ipv4_mapped().is_some());
    if is_v6 && !mapped {
        let found = getsockopt(&socket.as_fd(), Ip6tOriginalDst)?;
        let (address, port) = (Ipv6Addr::from(found.sin6_addr.s6_addr), u16::from_be(found.sin6_port));
        return Ok(SocketAddr::from((address, port)));
    }
    let found = getsockopt(&socket.as_fd(), OriginalDst)?;
    let (address, port) = (Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr)), u16::from_be(found.sin_port));
    Ok(SocketAddr::from((address, port)))
}
