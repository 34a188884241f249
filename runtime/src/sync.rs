//! The one switch between `std` and loom: everything that two threads can touch is written against these names, so
//! that the models in `model-checks/` run the very source that users get (`--cfg trefoil_loom`). In the folder is what is made of them, of use to all: `inbox` and `waker_slot`, how a wake-up
//! of another thread arrives; `biased`, the lock of what one thread uses, over `barrier`.

pub(crate) mod barrier;
pub mod biased;
pub(crate) mod inbox;
pub(crate) mod waker_slot;

#[cfg(not(trefoil_loom))]
mod real {
    pub use std::sync::atomic::{self, AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub use std::sync::{Arc, Condvar};
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

    /// What to do between two looks at something that another thread is about to finish. It may not be running: let it.
    pub fn spin() {
        std::thread::yield_now();
    }
}

#[cfg(trefoil_loom)]
mod real {
    pub use loom::sync::atomic::{self, Ordering};
    pub use loom::sync::{Arc, Condvar};
    pub use loom::thread_local;

    // Loom does not see that memory is freed. So each of these ends with a store, which loom orders against every access by
    // another thread: it tries the end before them too, where the allocator of the models makes them fail. And with an access
    // that no other thread may do at the same time: what was done before has to be ordered before the end.

    /// Atomics of loom that tell it of their end.
    macro_rules! atomics {
        ($($name:ident $(<$t:ident>)? = $value:ty, $nothing:expr;)*) => {$(
            /// That of loom, which is told of the end.
            #[derive(Debug)]
            pub struct $name$(<$t>)?(loom::sync::atomic::$name$(<$t>)?);

            impl$(<$t>)? $name$(<$t>)? {
                /// A new one.
                #[track_caller]
                pub fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }
            }

            impl$(<$t>)? std::ops::Deref for $name$(<$t>)? {
                type Target = loom::sync::atomic::$name$(<$t>)?;
                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }

            impl$(<$t>)? Drop for $name$(<$t>)? {
                fn drop(&mut self) {
                    if !std::thread::panicking() {
                        self.0.store($nothing, Ordering::Relaxed);
                        self.0.with_mut(|_| {});
                    }
                }
            }
        )*};
    }

    atomics! {
        AtomicU8 = u8, 0;
        AtomicU32 = u32, 0;
        AtomicU64 = u64, 0;
        AtomicUsize = usize, 0;
        AtomicPtr<T> = *mut T, std::ptr::null_mut();
    }

    /// That of loom, in a word whose end it is told of.
    #[derive(Debug)]
    pub struct AtomicBool(loom::sync::atomic::AtomicBool, AtomicU8);

    impl AtomicBool {
        /// A new one.
        #[track_caller]
        pub fn new(value: bool) -> Self {
            Self(loom::sync::atomic::AtomicBool::new(value), AtomicU8::new(0))
        }
    }

    impl std::ops::Deref for AtomicBool {
        type Target = loom::sync::atomic::AtomicBool;
        fn deref(&self) -> &Self::Target {
            self.1.load(Ordering::Relaxed);
            &self.0
        }
    }

    /// Loom's cell, whose end is an access like any other.
    #[derive(Debug)]
    pub struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// A new cell.
        #[track_caller]
        pub fn new(value: T) -> Self {
            Self(loom::cell::UnsafeCell::new(value))
        }

        /// Calls `f` with a pointer for reading.
        #[track_caller]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            self.0.with(f)
        }

        /// Calls `f` with a pointer for writing.
        #[track_caller]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            self.0.with_mut(f)
        }
    }

    impl<T> Drop for UnsafeCell<T> {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                self.0.with_mut(|_| {});
            }
        }
    }

    /// Loom's mutex, with the signature of ours, and a word whose end loom is told of.
    #[derive(Debug)]
    pub struct Mutex<T>(loom::sync::Mutex<T>, AtomicU8);

    impl<T> Mutex<T> {
        /// A new mutex.
        #[track_caller]
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value), AtomicU8::new(0))
        }

        /// Locks it.
        #[track_caller]
        pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.1.load(Ordering::Relaxed);
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    /// What to do between two looks at something that another thread is about to finish.
    pub fn spin() {
        loom::thread::yield_now();
    }
}

pub use real::*;
