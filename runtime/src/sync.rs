//! The one switch between `std` and loom: everything that two threads can touch is written against these names, so
//! that the models in `model-checks/` run the very source that users get (`--cfg trefoil_loom`).

#[cfg(not(trefoil_loom))]
mod real {
    pub use std::sync::Arc;
    pub use std::sync::atomic::{self, AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub use std::thread_local;

    /// `std::cell::UnsafeCell` with loom's closure interface, so that loom can see each access.
    #[derive(Debug, Default)]
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// A new cell.
        pub const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        /// Calls `f` with a pointer for reading.
        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Calls `f` with a pointer for writing.
        #[inline(always)]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// A `std::sync::Mutex` that a panic does not poison: no code of ours panics while it holds one, and user code
    /// never runs under one.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// A new mutex.
        pub const fn new(value: T) -> Self {
            Self(std::sync::Mutex::new(value))
        }

        /// Locks it.
        #[inline]
        pub fn lock(&self) -> std::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    /// What to do between two looks at something that another thread is about to finish.
    pub fn spin() {
        std::hint::spin_loop();
    }
}

#[cfg(trefoil_loom)]
mod real {
    pub use loom::cell::UnsafeCell;
    pub use loom::sync::Arc;
    pub use loom::sync::atomic::{self, AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub use loom::thread_local;

    /// Loom's mutex, with the signature of ours.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// A new mutex.
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        /// Locks it.
        pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    /// What to do between two looks at something that another thread is about to finish.
    pub fn spin() {
        loom::thread::yield_now();
    }
}

pub use real::*;
