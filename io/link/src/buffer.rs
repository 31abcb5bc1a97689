//! Read buffers of one shard: three sizes, a short free list of each. Knows no connection.

use std::cell::{Cell, RefCell};

use bytes::{Bytes, BytesMut};

/// What a connection starts to read with, in bytes.
pub(crate) const SMALL: usize = 4 * 1024;
/// What it grows to in bulk.
pub(crate) const LARGE: usize = 64 * 1024;

const CLASSES: [Class; 3] =
    [Class { bytes: SMALL, kept: 256 }, Class { bytes: 16 * 1024, kept: 64 }, Class { bytes: LARGE, kept: 16 }];

struct Class {
    bytes: usize,
    /// Free buffers of this size that a shard keeps: 3 MiB over all sizes.
    kept: usize,
}

thread_local! {
    static FREE: RefCell<[Vec<BytesMut>; 3]> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

/// Lets `write` encode into memory that the shard uses over and over, and gives what it wrote.
pub(crate) fn encode<E>(write: impl FnOnce(&mut BytesMut) -> Result<usize, E>) -> Result<Bytes, E> {
    thread_local! {
        static SCRATCH: Cell<BytesMut> = Cell::new(BytesMut::new());
    }
    // Taken out meanwhile: `write` is foreign code.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let written = write(&mut scratch);
    let bytes = scratch.split().freeze();
    SCRATCH.set(scratch);
    written.map(|_| bytes)
}

fn class_of(bytes: usize) -> usize {
    CLASSES.iter().position(|class| bytes <= class.bytes).unwrap_or(CLASSES.len() - 1)
}

/// An empty buffer of at least `bytes`, or of [`LARGE`] when that is less.
pub(crate) fn take(bytes: usize) -> BytesMut {
    let class = class_of(bytes);
    let free = FREE.with_borrow_mut(|free| free[class].pop());
    free.unwrap_or_else(|| BytesMut::with_capacity(CLASSES[class].bytes))
}

/// `buf` with room to receive about `size` bytes behind what it holds.
pub(crate) fn with_room(mut buf: BytesMut, size: usize) -> BytesMut {
    if buf.capacity() == 0 {
        return take(size);
    }
    // Half a buffer is worth a read; reserving regains the whole allocation when its messages are gone.
    if buf.capacity() - buf.len() < size / 2 {
        buf.reserve(size);
    }
    buf
}

/// Takes back a buffer whose content is not needed. One that is still shared, or of an odd size, is let go.
pub(crate) fn give(mut buf: BytesMut) {
    buf.clear();
    // The largest class that the allocation, regained whole, can serve.
    let Some(class) = (0..CLASSES.len()).rev().find(|&class| buf.try_reclaim(CLASSES[class].bytes)) else { return };
    if buf.capacity() > 2 * CLASSES[class].bytes {
        return;
    }
    FREE.with_borrow_mut(|free| {
        if free[class].len() < CLASSES[class].kept {
            free[class].push(buf);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_only_when_nobody_shares_it() {
        let mut buf = take(100);
        assert!(buf.capacity() >= SMALL);
        buf.extend_from_slice(b"abc");
        let shared = buf.split().freeze();
        let at = shared.as_ptr();
        give(buf);
        let mut other = take(100);
        other.extend_from_slice(b"xyz");
        assert_ne!(other.as_ptr(), at);
        assert_eq!(&shared[..], b"abc");

        let at = other.as_ptr();
        let part = other.split();
        drop(part);
        give(other);
        let again = take(100);
        assert_eq!(again.as_ptr(), at);
    }

    #[test]
    fn the_free_list_is_bounded() {
        for _ in 0..1000 {
            give(BytesMut::with_capacity(LARGE));
            give(BytesMut::with_capacity(10 * LARGE));
            give(BytesMut::with_capacity(10));
        }
        FREE.with_borrow(|free| {
            for (list, class) in free.iter().zip(&CLASSES) {
                assert!(list.len() <= class.kept);
            }
        });
    }
}
