//! How one declaration becomes a struct, its decoder and its JSON schema: the `Form` trait and the macros `record!`,
//! `union!` and `words!`. Knows no key of the vocabulary.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::context::{Context, KeyRule, Place, Table};
use crate::schema::{Definitions, nullable};
use crate::tree::{Entry, Node, Value};

/// Something that can be written in the document.
pub(crate) trait Form {
    /// What decoding gives.
    type Out;
    /// Decodes `node`. `None` means that the value is unusable and that the context has been told why.
    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Self::Out>;
    /// The JSON schema of what may be written.
    fn schema(defs: &mut Definitions) -> Json;
    /// What holds when the key is absent, where something does.
    fn absent() -> Option<Self::Out> {
        None
    }
}

/// A mapping with a fixed set of keys; `record!` implements it.
pub(crate) trait Record: Sized {
    /// Every key it knows, built or not.
    fn keys(out: &mut Vec<KeyRule>);
    /// Reads its fields from a table whose keys have been checked.
    fn read(table: &Table<'_>, cx: &mut Context<'_>) -> Option<Self>;
    /// Adds its properties and the names of the required ones.
    fn properties(defs: &mut Definitions, out: &mut Properties);
}

/// The properties part of an object's schema under construction.
#[derive(Default)]
pub(crate) struct Properties {
    pub properties: serde_json::Map<String, Json>,
    pub required: Vec<&'static str>,
    pub alternatives: Vec<&'static str>,
}

impl<F: Form> Form for Option<F> {
    type Out = Option<F::Out>;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Self::Out> {
        if node.is_null() {
            return Some(None);
        }
        F::decode(node, cx).map(Some)
    }

    fn schema(defs: &mut Definitions) -> Json {
        nullable(F::schema(defs))
    }

    fn absent() -> Option<Self::Out> {
        Some(None)
    }
}

impl<F: Form> Form for Vec<F> {
    type Out = Vec<F::Out>;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Self::Out> {
        let items = cx.sequence(node)?;
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            out.extend(cx.at_index(index, |cx| F::decode(item, cx)));
        }
        // All are looked at, but a list is usable whole or not at all: a match that lost a condition would match more.
        // Where an item may be left out, the form is `Vec<Attempt<_>>`.
        (out.len() == items.len()).then_some(out)
    }

    fn schema(defs: &mut Definitions) -> Json {
        serde_json::json!({"type": "array", "items": F::schema(defs)})
    }

    fn absent() -> Option<Self::Out> {
        Some(Vec::new())
    }
}

/// A mapping from names of the user's choice, in the order written; usable whole or not at all.
pub(crate) struct Named<K, F>(std::marker::PhantomData<(K, F)>);

impl<K: Key, F: Form> Form for Named<K, F> {
    type Out = Vec<(K::Out, F::Out)>;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Self::Out> {
        let entries = cx.mapping(node)?;
        let mut out: Vec<(K::Out, F::Out)> = Vec::with_capacity(entries.len());
        for entry in entries {
            cx.at_key(&entry.key, |cx| {
                let key = match K::parse(&entry.key) {
                    Ok(key) => Some(key),
                    Err(expected) => {
                        cx.invalid_at(entry.mark, expected, &format!("{:?}", entry.key));
                        None
                    }
                };
                let value = F::decode(&entry.node, cx);
                if let (Some(key), Some(value)) = (key, value) {
                    if out.iter().any(|(other, _)| *other == key) {
                        cx.duplicate_at(entry.mark, &entry.key);
                        return;
                    }
                    out.push((key, value));
                }
            });
        }
        (out.len() == entries.len()).then_some(out)
    }

    fn schema(defs: &mut Definitions) -> Json {
        serde_json::json!({"type": "object", "additionalProperties": F::schema(defs)})
    }

    fn absent() -> Option<Self::Out> {
        Some(Vec::new())
    }
}

/// A name that may stand as a key in a `Named` mapping.
pub(crate) trait Key {
    /// What the key becomes.
    type Out: PartialEq;
    /// The key, or what was expected instead.
    fn parse(text: &str) -> Result<Self::Out, &'static str>;
}

/// Decoding that cannot fail the mapping around it: the value if it is usable, where it stood, and the name that it
/// bears (or `None`), so that a reference to a broken definition is not reported as dangling.
pub(crate) struct Attempt<F>(std::marker::PhantomData<F>);

/// What an `Attempt` gives.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attempted<T> {
    pub name: Option<String>,
    pub place: Place,
    pub value: Option<T>,
}

impl<F: Form> Form for Attempt<F> {
    type Out = Attempted<F::Out>;

    fn decode(node: &Node, cx: &mut Context<'_>) -> Option<Self::Out> {
        let place = cx.place(node.mark);
        let value = F::decode(node, cx);
        Some(Attempted { name: name_of(node), place, value })
    }

    fn schema(defs: &mut Definitions) -> Json {
        F::schema(defs)
    }
}

fn name_of(node: &Node) -> Option<String> {
    let Value::Mapping(entries) = &node.value else { return None };
    let name = entries.iter().find(|entry| entry.key == "name")?;
    match &name.node.value {
        Value::Scalar(scalar) => Some(scalar.text.clone()),
        _ => None,
    }
}

/// Where a record and each of its keys stood. Records marked `[placed]` keep one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Placed {
    pub own: Place,
    keys: BTreeMap<String, Place>,
}

impl Placed {
    pub(crate) fn new(table: &Table<'_>, cx: &Context<'_>) -> Self {
        let own = cx.place(table.mark);
        let place_of = |entry: &Entry| {
            let path = if own.path.is_empty() { entry.key.clone() } else { format!("{}.{}", own.path, entry.key) };
            (entry.key.clone(), Place { mark: entry.node.mark, path })
        };
        let keys = table.entries().iter().map(place_of).collect();
        Self { own, keys }
    }

    /// Where the value of `key` stood, or the record itself when the key is absent.
    pub(crate) fn of(&self, key: &str) -> Place {
        self.keys.get(key).unwrap_or(&self.own).clone()
    }
}

/// The lines of a doc comment as one description.
pub(crate) fn description(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ").trim().to_owned()
}

/// Declares a mapping: the struct, its decoder and its schema.
///
/// A field is `name: Type = mode "key" | "alias" as Form;`. Modes: `must` (a fault when absent), `opt` (the form says what
/// absence means), `or(default)`, `flat` (the keys of another record stand in this one). `as Form` where the form is not
/// the type itself. Then, each optional: `one of "a", "b" later "c";` (exactly one of these keys, the second list being
/// known and not built), `later "x";` (known and not built; lenient reading ignores it), `guard "y";` (the same of a key
/// that protects: lenient reading leaves out what it protects, rather than serve it unprotected), `check function;`.
macro_rules! record {
    (
        $(#[doc = $doc:literal])*
        $(#[derive($($derive:ident),+)])?
        $vis:vis struct $name:ident $([$placed:ident])? {
            $(
                $(#[doc = $fdoc:literal])*
                $fvis:vis $field:ident : $ty:ty = $mode:ident $(($default:expr))? $key:literal $(| $alias:literal)* $(as $form:ty)?;
            )*
        }
        $(one of $($alt:literal),+ $(later $($altlater:literal),+)? ;)?
        $(later $($later:literal),+ ;)?
        $(guard $($guard:literal),+ ;)?
        $(check $check:path;)?
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq $($(, $derive)+)?)]
        $vis struct $name {
            $(pub(crate) $placed: $crate::form::Placed,)?
            $($(#[doc = $fdoc])* $fvis $field: $ty,)*
        }

        impl $crate::form::Record for $name {
            fn keys(out: &mut Vec<$crate::context::KeyRule>) {
                $($crate::form::key!(out, $mode, $ty, $key $(| $alias)*);)*
                $(
                    $(out.push($crate::context::KeyRule::alternative($alt));)+
                    $($(out.push($crate::context::KeyRule::alternative_later($altlater));)+)?
                )?
                $($(out.push($crate::context::KeyRule::later($later));)+)?
                $($(out.push($crate::context::KeyRule::guard($guard));)+)?
            }

            fn read(table: &$crate::context::Table<'_>, cx: &mut $crate::context::Context<'_>) -> Option<Self> {
                $(let $field = $crate::form::read!(table, cx, $mode ($($default)?), $ty, [$key $(, $alias)*] $(as $form)?);)*
                $(let $placed = $crate::form::Placed::new(table, cx);)?
                if table.unusable {
                    return None;
                }
                let value = Self { $($placed,)? $($field: $field?,)* };
                $(if !$check(&value, table, cx) { return None; })?
                Some(value)
            }

            fn properties(defs: &mut $crate::schema::Definitions, out: &mut $crate::form::Properties) {
                $($crate::form::property!(defs, out, $mode, $ty, [$key $(, $alias)*], [$($fdoc),*] $(as $form)?);)*
                $($(out.alternatives.push($alt);)+
                    $($(out.properties.insert($altlater.to_owned(), $crate::schema::not_built());)+)?)?
                $($(out.properties.insert($later.to_owned(), $crate::schema::not_built());)+)?
                $($(out.properties.insert($guard.to_owned(), $crate::schema::not_built());)+)?
            }
        }

        impl $crate::form::Form for $name {
            type Out = Self;

            fn decode(node: &$crate::tree::Node, cx: &mut $crate::context::Context<'_>) -> Option<Self> {
                let mut keys = Vec::new();
                <Self as $crate::form::Record>::keys(&mut keys);
                let table = cx.table(node, &keys)?;
                <Self as $crate::form::Record>::read(&table, cx)
            }

            fn schema(defs: &mut $crate::schema::Definitions) -> serde_json::Value {
                defs.record::<Self>(stringify!($name), &$crate::form::description(&[$($doc),*]))
            }
        }
    };
}

/// The key rule of one field.
macro_rules! key {
    ($out:ident, flat, $ty:ty, $key:literal) => {
        <$ty as $crate::form::Record>::keys($out)
    };
    ($out:ident, $mode:ident, $ty:ty, $key:literal $(| $alias:literal)*) => {
        $out.push($crate::context::KeyRule::built($key));
        $($out.push($crate::context::KeyRule::built($alias));)*
    };
}

/// Reads one field.
macro_rules! read {
    ($table:ident, $cx:ident, flat (), $ty:ty, [$key:literal]) => {
        <$ty as $crate::form::Record>::read($table, $cx)
    };
    ($table:ident, $cx:ident, must (), $ty:ty, [$($key:literal),+]) => {
        $table.must::<$ty>($cx, &[$($key),+])
    };
    ($table:ident, $cx:ident, must (), $ty:ty, [$($key:literal),+] as $form:ty) => {
        $table.must::<$form>($cx, &[$($key),+])
    };
    ($table:ident, $cx:ident, opt (), $ty:ty, [$($key:literal),+]) => {
        $table.optional::<$ty>($cx, &[$($key),+])
    };
    ($table:ident, $cx:ident, opt (), $ty:ty, [$($key:literal),+] as $form:ty) => {
        $table.optional::<$form>($cx, &[$($key),+])
    };
    ($table:ident, $cx:ident, or ($default:expr), $ty:ty, [$($key:literal),+]) => {
        $table.or::<$ty>($cx, &[$($key),+], || $default)
    };
    ($table:ident, $cx:ident, or ($default:expr), $ty:ty, [$($key:literal),+] as $form:ty) => {
        $table.or::<$form>($cx, &[$($key),+], || $default)
    };
}

/// The schema of one field.
macro_rules! property {
    ($defs:ident, $out:ident, flat, $ty:ty, [$key:literal], [$($doc:literal),*]) => {
        <$ty as $crate::form::Record>::properties($defs, $out)
    };
    ($defs:ident, $out:ident, $mode:ident, $ty:ty, $keys:tt, $docs:tt) => {
        $crate::form::property!($defs, $out, $mode, $ty, $keys, $docs as $ty)
    };
    ($defs:ident, $out:ident, must, $ty:ty, [$key:literal $(, $alias:literal)*], [$($doc:literal),*] as $form:ty) => {
        $out.required.push($key);
        let schema = <$form as $crate::form::Form>::schema($defs);
        $out.properties.insert($key.to_owned(), $crate::schema::described(schema, &$crate::form::description(&[$($doc),*])));
    };
    ($defs:ident, $out:ident, $mode:ident, $ty:ty, [$key:literal $(, $alias:literal)*], [$($doc:literal),*] as $form:ty) => {
        let schema = $crate::schema::nullable(<$form as $crate::form::Form>::schema($defs));
        let schema = $crate::schema::described(schema, &$crate::form::description(&[$($doc),*]));
        $($out.properties.insert($alias.to_owned(), schema.clone());)*
        $out.properties.insert($key.to_owned(), schema);
    };
}

/// Declares a choice: a mapping with exactly one of several keys, or one of several bare words.
macro_rules! union {
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $name:ident {
            $($(#[doc = $vdoc:literal])* $variant:ident($ty:ty) = $key:literal $(as $form:ty)?;)+
        }
        $(words { $($(#[doc = $wdoc:literal])* $word:ident = $text:literal;)+ })?
        $(later $($later:literal),+ ;)?
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        $vis enum $name {
            $($(#[doc = $vdoc])* $variant($ty),)+
            $($($(#[doc = $wdoc])* $word,)+)?
        }

        impl $name {
            #[allow(dead_code)]
            const KEYS: &'static [&'static str] = &[$($key),+];
        }

        impl $crate::form::Form for $name {
            type Out = Self;

            fn decode(node: &$crate::tree::Node, cx: &mut $crate::context::Context<'_>) -> Option<Self> {
                $(if node.is_scalar() {
                    let word = cx.word_beside(node, &[$($text),+], Self::KEYS)?;
                    $(if word == $text { return Some(Self::$word); })+
                })?
                let keys = [
                    $($crate::context::KeyRule::built($key), $crate::context::KeyRule::alternative($key),)+
                    $($($crate::context::KeyRule::alternative_later($later),)+)?
                ];
                let table = cx.table(node, &keys)?;
                let mut chosen = None;
                $(if table.entry(&[$key]).is_some() {
                    chosen = $crate::form::read!(table, cx, must (), $ty, [$key] $(as $form)?).map(Self::$variant);
                })+
                if table.unusable { None } else { chosen }
            }

            fn schema(defs: &mut $crate::schema::Definitions) -> serde_json::Value {
                let description = $crate::form::description(&[$($doc),*]);
                defs.define(stringify!($name), &description, |defs| {
                    let mut choices = Vec::new();
                    $({
                        let inner = $crate::form::form_schema!(defs, $ty $(, $form)?);
                        choices.push($crate::schema::single($key, inner, &$crate::form::description(&[$($vdoc),*])));
                    })+
                    $($(choices.push($crate::schema::constant($text, &$crate::form::description(&[$($wdoc),*])));)+)?
                    serde_json::json!({"oneOf": choices})
                })
            }
        }
    };
}

/// The schema of a type, or of the form named for it.
macro_rules! form_schema {
    ($defs:ident, $ty:ty) => {
        <$ty as $crate::form::Form>::schema($defs)
    };
    ($defs:ident, $ty:ty, $form:ty) => {
        <$form as $crate::form::Form>::schema($defs)
    };
}

/// Declares a closed set of words.
macro_rules! words {
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $name:ident {
            $($(#[doc = $vdoc:literal])* $variant:ident = $text:literal,)+
        }
        $(later $($later:literal),+ ;)?
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[doc = $vdoc])* $variant,)+
        }

        impl $name {
            /// The word as it is written in the document.
            #[allow(dead_code)]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl $crate::form::Form for $name {
            type Out = Self;

            fn decode(node: &$crate::tree::Node, cx: &mut $crate::context::Context<'_>) -> Option<Self> {
                let word = cx.word(node, &[$($text),+], &[$($($later),+)?])?;
                $(if word == $text { return Some(Self::$variant); })+
                None
            }

            fn schema(defs: &mut $crate::schema::Definitions) -> serde_json::Value {
                let description = $crate::form::description(&[$($doc),*]);
                defs.define(stringify!($name), &description, |_| {
                    serde_json::json!({"oneOf": [
                        $($crate::schema::constant($text, &$crate::form::description(&[$($vdoc),*]))),+
                    ]})
                })
            }
        }
    };
}

pub(crate) use {form_schema, key, property, read, record, union, words};
