//! Files and directories. One binary: to link each file takes longer than to compile it.

mod directories;
mod files;
mod moved;
