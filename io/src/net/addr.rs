//! What may be given where an address is wanted.

use crate::error::during;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Something that is an address already, or the text of one.
///
/// Not `std::net::ToSocketAddrs`: that one looks names up, and a look-up here would block every task of the thread.
///
/// # Examples
/// ```
/// use trefoil_io::net::ToSocketAddr;
///
/// assert_eq!("127.0.0.1:80".to_socket_addr()?, (std::net::Ipv4Addr::LOCALHOST, 80).to_socket_addr()?);
/// assert_eq!(("::1", 80).to_socket_addr()?.to_string(), "[::1]:80");
///
/// let error = "example.com:80".to_socket_addr().unwrap_err();
/// assert!(error.to_string().contains("a name, and names are not looked up here"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait ToSocketAddr {
    /// The address.
    ///
    /// # Errors
    /// `InvalidInput` for a name, and for what is neither.
    fn to_socket_addr(&self) -> io::Result<SocketAddr>;
}

#[cold]
fn not_an_address(text: &dyn fmt::Display) -> io::Error {
    let why = "this is no IP address and port; if it is a name, and names are not looked up here, since that would block every task of the thread: resolve it first";
    during("use as an address", text, io::Error::new(io::ErrorKind::InvalidInput, why))
}

impl ToSocketAddr for SocketAddr {
    fn to_socket_addr(&self) -> io::Result<SocketAddr> {
        Ok(*self)
    }
}

impl ToSocketAddr for SocketAddrV4 {
    fn to_socket_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::V4(*self))
    }
}

impl ToSocketAddr for SocketAddrV6 {
    fn to_socket_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::V6(*self))
    }
}

impl ToSocketAddr for (IpAddr, u16) {
    fn to_socket_addr(&self) -> io::Result<SocketAddr> {
        Ok((*self).into())
    }
}

impl ToSocketAddr for (Ipv4Addr, u16) {
    fn to_socket_addr(&self) -> io::Result<SocketAddr> {
        Ok((*self).into())
    }
}

impl ToSocketAddr for (Ipv6Addr, u16) {
    fn to_socket_addr(&self) -> io::Result<SocketAddr> {
        Ok((*self).into())
    }
}

impl ToSocketAddr for str {
    fn to_socket_addr(&self) -> io::Result<SocketAddr> {
        self.parse().map_err(|_| not_an_address(&self))
    }
}

impl ToSocketAddr for String {
    fn to_socket_addr(&self) -> io::Result<SocketAddr> {
        self.as_str().to_socket_addr()
    }
}

impl ToSocketAddr for (&str, u16) {
    fn to_socket_addr(&self) -> io::Result<SocketAddr> {
        let ip: IpAddr = self.0.parse().map_err(|_| not_an_address(&self.0))?;
        Ok((ip, self.1).into())
    }
}

impl<A: ToSocketAddr + ?Sized> ToSocketAddr for &A {
    fn to_socket_addr(&self) -> io::Result<SocketAddr> {
        (**self).to_socket_addr()
    }
}
