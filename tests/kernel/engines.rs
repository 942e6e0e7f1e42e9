//! Other programs hold what `translate` tells them: each is given its words, and runs a process whose limits are compared
//! with those of a session of the same role, knob by knob. What was told to be lost is, and cannot be said there.
//!
//! Where a program is, is in the image of this kind of guest alone. The images of containers are made here, of one file.

mod compose;
mod docker;
mod held;
mod oci;
mod podman;
mod quadlet;
mod roles;
mod slurm;
mod systemd;
