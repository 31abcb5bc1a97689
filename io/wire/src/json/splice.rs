//! Cuts replacements into a message without copying what stays. Owns edits by byte range; knows members and strings of JSON, no
//! JSON-RPC method.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::cursor;
use super::envelope::Envelope;
use super::error::{JsonError, JsonErrorKind};
use super::range::Range32;
use super::text;

/// Up to this size the spliced message is copied into one buffer. Cutting takes two counted references and a vectored write
/// for each edit, which costs more than the copy of a small message; `examples/json_cost.rs` measures where they meet.
pub const COPY_MAX: usize = 4096;

/// A message in order, in one piece or several; two edits fit without allocation.
pub type Parts = SmallVec<[Bytes; 6]>;

/// A set of edits to one message, kept in order of position. Edits must not overlap; those that insert at one place keep
/// the order in which they were added.
#[derive(Debug, Clone, Default)]
pub struct Splice {
    edits: SmallVec<[Edit; 4]>,
}

#[derive(Debug, Clone)]
struct Edit {
    start: usize,
    end: usize,
    with: Bytes,
}

impl Splice {
    /// No edits.
    pub fn new() -> Self {
        Splice::default()
    }

    /// True if the message stays as it is.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Puts `with` in the place of `range`. The caller answers for `with` being JSON.
    pub fn replace(&mut self, range: Range32, with: impl Into<Bytes>) -> &mut Self {
        self.edit(range.start(), range.end(), with.into())
    }

    /// Puts `text`, quoted and escaped, in the place of the value at `range`.
    pub fn replace_string(&mut self, range: Range32, text: &str) -> &mut Self {
        self.replace(range, quoted(text))
    }

    /// Puts `with` before the byte at offset `at`.
    pub fn insert(&mut self, at: usize, with: impl Into<Bytes>) -> &mut Self {
        self.edit(at, at, with.into())
    }

    /// Puts `prefix` before the text of the string at `range`, whatever escapes the string holds.
    pub fn prefix_string(&mut self, range: Range32, prefix: &str) -> &mut Self {
        let mut escaped = BytesMut::new();
        text::escape_into(&mut escaped, prefix);
        self.insert(range.start() + 1, escaped)
    }

    /// Drops `range`.
    pub fn remove(&mut self, range: Range32) -> &mut Self {
        self.edit(range.start(), range.end(), Bytes::new())
    }

    /// Puts the raw value `id` in the place of the message's id. False if the message has none.
    pub fn replace_id(&mut self, envelope: &Envelope, id: impl Into<Bytes>) -> bool {
        envelope.id.map(|old| self.replace(old.range, id)).is_some()
    }

    /// Puts `name` in the place of `params.name`. False if the message has none.
    pub fn replace_name(&mut self, envelope: &Envelope, name: &str) -> bool {
        envelope.name.map(|old| self.replace_string(old, name)).is_some()
    }

    /// Puts a member at the front of the object at `range`, without looking for an old one of that key. `value` is raw JSON.
    /// At most once per object, and not beside `edit_object` on the same one: each decides on its comma alone.
    ///
    /// # Errors
    /// `WrongKind` if the value is no object.
    pub fn insert_member(&mut self, bytes: &[u8], range: Range32, key: &str, value: &[u8]) -> Result<(), JsonError> {
        let mut members = cursor::members(bytes, range);
        let empty = members.next().transpose()?.is_none();
        let mut member = member(key, value);
        if !empty {
            member.extend_from_slice(b",");
        }
        self.insert(range.start() + 1, member);
        Ok(())
    }

    /// Sets and removes members of the object at `range` in one walk. A key of `set` takes its old member's place or goes to the
    /// end; of a repeated key one member stays. Values are raw JSON. A key in both is removed.
    ///
    /// # Errors
    /// `WrongKind` if the value is no object, and whatever the walk meets. No edit is added then.
    pub fn edit_object(
        &mut self,
        bytes: &[u8],
        range: Range32,
        set: &[(&str, &[u8])],
        remove: &[&str],
    ) -> Result<(), JsonError> {
        let members = cursor::members(bytes, range).collect::<Result<SmallVec<[_; 16]>, _>>()?;
        let mut done: SmallVec<[bool; 8]> = SmallVec::from_elem(false, set.len());
        let mut kept_end = None;
        for (index, member) in members.iter().enumerate() {
            let is = |key: &str| text::raw_eq(bytes, member.key, key);
            let position = set.iter().position(|(key, _)| is(key));
            let drop = remove.iter().any(|key| is(key)) || position.is_some_and(|position| done[position]);
            if drop {
                // The comma in front goes along; before the first kept member it is the one behind.
                let next = members.get(index + 1).map_or(member.value.end(), |next| next.key.start());
                match kept_end {
                    Some(end) => self.edit(end, member.value.end(), Bytes::new()),
                    None => self.edit(member.key.start(), next, Bytes::new()),
                };
            } else if let Some(position) = position {
                done[position] = true;
                self.replace(member.value, Bytes::copy_from_slice(set[position].1));
            }
            // What a dropped member in the middle has freed begins behind it for the next one.
            if !drop || kept_end.is_some() {
                kept_end = Some(member.value.end());
            }
        }
        self.append_members(range.end() - 1, kept_end.is_some(), set, &done, remove);
        Ok(())
    }

    fn append_members(&mut self, at: usize, mut any: bool, set: &[(&str, &[u8])], done: &[bool], remove: &[&str]) {
        let mut added = BytesMut::new();
        for ((key, value), done) in set.iter().zip(done) {
            if *done || remove.contains(key) {
                continue;
            }
            if any {
                added.extend_from_slice(b",");
            }
            any = true;
            added.unsplit(member(key, value));
        }
        if !added.is_empty() {
            self.insert(at, added);
        }
    }

    /// The length in bytes of the edited message.
    ///
    /// # Errors
    /// `BadRange` if edits overlap or lie outside the message.
    pub fn spliced_len(&self, message: &[u8]) -> Result<usize, JsonError> {
        let mut at = 0;
        let mut length = message.len();
        for edit in &self.edits {
            if edit.start < at || edit.end < edit.start || edit.end > message.len() {
                return Err(JsonError::new(JsonErrorKind::BadRange, edit.start));
            }
            at = edit.end;
            length = length - (edit.end - edit.start) + edit.with.len();
        }
        Ok(length)
    }

    /// The edited message in the cheaper form: one piece up to [`COPY_MAX`], else the parts.
    ///
    /// # Errors
    /// As [`Splice::spliced_len`].
    pub fn encode(&self, message: &Bytes) -> Result<Parts, JsonError> {
        if self.edits.is_empty() {
            return Ok(SmallVec::from_iter([message.clone()]));
        }
        if self.spliced_len(message)? <= COPY_MAX {
            return Ok(SmallVec::from_iter([self.contiguous(message)?]));
        }
        self.parts(message)
    }

    /// The edited message as slices of the old one with the replacements between them. Empty slices are left out.
    ///
    /// # Errors
    /// As [`Splice::spliced_len`].
    pub fn parts(&self, message: &Bytes) -> Result<Parts, JsonError> {
        self.spliced_len(message)?;
        let mut parts = Parts::new();
        let mut at = 0;
        for edit in &self.edits {
            if edit.start > at {
                parts.push(message.slice(at..edit.start));
            }
            if !edit.with.is_empty() {
                parts.push(edit.with.clone());
            }
            at = edit.end;
        }
        if at < message.len() {
            parts.push(message.slice(at..));
        }
        Ok(parts)
    }

    /// The edited message copied into one buffer.
    ///
    /// # Errors
    /// As [`Splice::spliced_len`].
    pub fn contiguous(&self, message: &[u8]) -> Result<Bytes, JsonError> {
        let mut out = BytesMut::with_capacity(self.spliced_len(message)?);
        self.write_into(message, &mut out)?;
        Ok(out.freeze())
    }

    /// Appends the edited message to `out`; leaves it alone on an error.
    ///
    /// # Errors
    /// As [`Splice::spliced_len`].
    pub fn write_into(&self, message: &[u8], out: &mut BytesMut) -> Result<(), JsonError> {
        out.reserve(self.spliced_len(message)?);
        let mut at = 0;
        for edit in &self.edits {
            out.extend_from_slice(&message[at..edit.start]);
            out.extend_from_slice(&edit.with);
            at = edit.end;
        }
        out.extend_from_slice(&message[at..]);
        Ok(())
    }

    fn edit(&mut self, start: usize, end: usize, with: Bytes) -> &mut Self {
        // An insertion goes before a replacement that starts where it stands.
        let behind = self.edits.iter().rposition(|edit| (edit.start, edit.end) <= (start, end));
        self.edits.insert(behind.map_or(0, |index| index + 1), Edit { start, end, with });
        self
    }
}

fn quoted(text: &str) -> BytesMut {
    let mut out = BytesMut::with_capacity(text.len() + 2);
    text::quote_into(&mut out, text);
    out
}

fn member(key: &str, value: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(key.len() + value.len() + 4);
    text::quote_into(&mut out, key);
    out.extend_from_slice(b":");
    out.extend_from_slice(value);
    out
}
