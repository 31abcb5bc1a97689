//! What a stdio target's children may use of the host.

use crate::form::{record, words};
use crate::scalar::Int;
use crate::size::{ByteSize, Cpus};

words! {
    /// Whether a child may use the network.
    pub enum Network {
        /// The gateway's own network.
        Allow = "allow",
        /// A network of its own with nothing but a loopback interface. Where the host forbids that, the child is not
        /// started.
        Deny = "deny",
    }
}

record! {
    /// What one child, with all that it starts, may use: held by a cgroup where the gateway may make one, else by limits
    /// of each process.
    #[derive(Default)]
    pub struct ChildLimits {
        /// Memory, like 512Mi. Without a cgroup: the writable memory of each process.
        pub memory: Option<u64> = opt "memory" as Option<ByteSize>;
        /// Processors, like 1.5. Without a cgroup: on how many it may run, rounded up. In thousandths of one.
        pub cpu: Option<u32> = opt "cpu" as Option<Cpus>;
        /// Open files of each process.
        pub files: Option<u32> = opt "files" as Option<Int<u32, 8, 1_048_576>>;
        /// Processes and threads. Without a cgroup: of the gateway's user altogether; as root the child is not started.
        pub processes: Option<u32> = opt "processes" as Option<Int<u32, 1, 1_048_576>>;
    }
}
