//! The `cgmgr` command. Everything is in [`cgmgr`], the library; only this file exits.

fn main() {}
