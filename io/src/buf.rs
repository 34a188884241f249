//! Buffers that an operation owns while it is under way, and gives back.

use std::mem::MaybeUninit;
use std::sync::Arc;

/// Bytes that an operation may own while the kernel reads them.
///
/// # Examples
/// ```
/// use trefoil_io::IoBuf;
///
/// assert_eq!(vec![1, 2, 3].content(), [1, 2, 3]);
/// assert_eq!("abc".content(), b"abc");
/// ```
///
/// # Safety
/// From call to call, until it is dropped or changed through `&mut`, `content` returns the same memory, also when the value was
/// moved in between; and nobody writes to that memory.
pub unsafe trait IoBuf: Send + 'static {
    /// The bytes.
    fn content(&self) -> &[u8];
}

/// A buffer that an operation may own while the kernel writes behind the bytes it has.
///
/// # Examples
/// ```
/// use trefoil_io::IoBufMut;
///
/// assert!(Vec::with_capacity(16).spare().len() >= 16);
/// ```
///
/// # Safety
/// `spare` returns the same memory until `advance` is called, also when the value was moved in between. `advance(n)` makes the first
/// `n` bytes of it the last ones of `content`.
pub unsafe trait IoBufMut: IoBuf {
    /// The room behind the bytes.
    fn spare(&mut self) -> &mut [MaybeUninit<u8>];

    /// The first `n` bytes of the spare room have been written.
    ///
    /// # Safety
    /// They have.
    unsafe fn advance(&mut self, n: usize);
}

// SAFETY: the bytes are on the heap.
unsafe impl IoBuf for Vec<u8> {
    fn content(&self) -> &[u8] {
        self
    }
}

// SAFETY: as above; `spare` does not grow the vector.
unsafe impl IoBufMut for Vec<u8> {
    fn spare(&mut self) -> &mut [MaybeUninit<u8>] {
        self.spare_capacity_mut()
    }

    unsafe fn advance(&mut self, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.set_len(self.len() + n) };
    }
}

// SAFETY: the bytes are on the heap.
unsafe impl IoBuf for Box<[u8]> {
    fn content(&self) -> &[u8] {
        self
    }
}

// SAFETY: the bytes are on the heap, and nobody can write to what is shared.
unsafe impl IoBuf for Arc<[u8]> {
    fn content(&self) -> &[u8] {
        self
    }
}

// SAFETY: the bytes are on the heap.
unsafe impl IoBuf for String {
    fn content(&self) -> &[u8] {
        self.as_bytes()
    }
}

// SAFETY: the bytes are there for ever.
unsafe impl IoBuf for &'static [u8] {
    fn content(&self) -> &[u8] {
        self
    }
}

// SAFETY: the bytes are there for ever.
unsafe impl<const N: usize> IoBuf for &'static [u8; N] {
    fn content(&self) -> &[u8] {
        *self
    }
}

// SAFETY: the bytes are there for ever.
unsafe impl IoBuf for &'static str {
    fn content(&self) -> &[u8] {
        self.as_bytes()
    }
}
