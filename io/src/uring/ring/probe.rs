//! Which operations the kernel has.

use std::os::fd::BorrowedFd;

use rustix::io_uring::IoringRegisterOp;

use super::register::register;

/// The operations that the kernel has, one bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ops([u64; 4]);

/// `struct io_uring_probe` with room for every opcode; rustix's has Rust enums where a newer kernel has newer values.
#[repr(C)]
struct Probe {
    last_op: u8,
    ops_len: u8,
    reserved: [u16; 7],
    ops: [ProbeOp; 256],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ProbeOp {
    op: u8,
    reserved: u8,
    flags: u16,
    reserved2: u32,
}

const _: () = assert!(size_of::<Probe>() == 16 + 256 * 8);

impl Ops {
    /// `REGISTER_PROBE`, since 5.6.
    pub(super) fn probe(fd: BorrowedFd<'_>) -> Self {
        const SUPPORTED: u16 = 1;
        let none = ProbeOp { op: 0, reserved: 0, flags: 0, reserved2: 0 };
        let mut probe = Probe { last_op: 0, ops_len: 0, reserved: [0; 7], ops: [none; 256] };
        let mut ops = Self::default();
        // SAFETY: `probe` has room for the 256 entries that this operation may write.
        if unsafe { register(fd, IoringRegisterOp::RegisterProbe, &raw mut probe, 256) }.is_ok() {
            for entry in &probe.ops[..usize::from(probe.ops_len)] {
                if entry.flags & SUPPORTED != 0 {
                    ops.0[usize::from(entry.op) / 64] |= 1 << (entry.op % 64);
                }
            }
        }
        ops
    }

    pub(super) fn contains(&self, opcode: u8) -> bool {
        self.0[usize::from(opcode) / 64] & (1 << (opcode % 64)) != 0
    }
}
