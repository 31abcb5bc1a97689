//! The dated revisions of the protocol that have sessions, and what differs between them.

/// A revision with the `initialize` handshake, in order of age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    V2024_11_05,
    V2025_03_26,
    V2025_06_18,
    V2025_11_25,
}

impl Revision {
    /// The newest revision that this gateway speaks; offered to whoever asks for an unknown one.
    pub const NEWEST: Revision = Revision::V2025_11_25;
    /// All of them, newest first.
    pub const ALL: [Revision; 4] =
        [Revision::V2025_11_25, Revision::V2025_06_18, Revision::V2025_03_26, Revision::V2024_11_05];

    /// The revision of a version string such as `2025-06-18`.
    pub fn parse(text: &[u8]) -> Option<Revision> {
        Revision::ALL.into_iter().find(|revision| revision.as_str().as_bytes() == text)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Revision::V2024_11_05 => "2024-11-05",
            Revision::V2025_03_26 => "2025-03-26",
            Revision::V2025_06_18 => "2025-06-18",
            Revision::V2025_11_25 => "2025-11-25",
        }
    }

    /// JSON-RPC batches exist in 2025-03-26 alone (removed by 2025-06-18).
    pub const fn has_batches(self) -> bool {
        matches!(self, Revision::V2025_03_26)
    }

    /// A server primes a stream with an id and may close it early since 2025-11-25 (SEP-1699).
    pub const fn has_priming_events(self) -> bool {
        matches!(self, Revision::V2025_11_25)
    }

    /// The `MCP-Protocol-Version` header is required after `initialize` since 2025-06-18.
    pub const fn has_version_header(self) -> bool {
        !matches!(self, Revision::V2024_11_05 | Revision::V2025_03_26)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_revision_reads_back() {
        for revision in Revision::ALL {
            assert_eq!(Revision::parse(revision.as_str().as_bytes()), Some(revision));
        }
        assert_eq!(Revision::parse(b"2026-07-28"), None);
        assert_eq!(Revision::parse(b""), None);
    }
}
