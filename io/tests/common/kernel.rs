//! Kernels that have less than this one, or fail. A seccomp filter plays them, for one thread and those that it starts.

#![allow(dead_code, reason = "not every test file uses all of it")]

/// Runs something on a thread of its own on which `syscall` fails with `errno`.
pub fn where_it_fails<T: Send + 'static>(syscall: i64, errno: i32, run: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(move || {
        from_here_on(syscall, errno);
        run()
    })
    .join()
    .unwrap()
}

/// From here on `syscall` fails with `errno` on this thread, and on those that it starts.
pub fn from_here_on(syscall: i64, errno: i32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the number of the call
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, syscall as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the first call has numbers only; the second reads `program`, which lives through it. Both are for this thread.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
}
