//! What may be put around a block: a closed list of suites, and stacks of them that always end in one that
//! authenticates.

use std::fmt;
use std::str::FromStr;

/// Most layers in a stack.
pub const MAX_LAYERS: usize = 2;
/// Most stacks that one epoch may use.
pub const MAX_STACKS: usize = 16;
/// Longest key label, in bytes.
pub const MAX_LABEL: usize = 32;

/// An algorithm. The number is written into records and descriptors and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM (NIST SP 800-38D), 96-bit nonce, 128-bit tag.
    Aes256Gcm = 1,
    /// AES-256-GCM-SIV (RFC 8452): a repeated nonce shows only that two blocks are equal.
    Aes256GcmSiv = 2,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305 = 3,
    /// The ChaCha20 stream (RFC 8439 section 2.4, counter from 0): keeps the length, proves nothing.
    ChaCha20 = 16,
    /// Computed by a component of the raw world: keeps the length, trusted with nothing.
    Guest = 32,
}

impl Suite {
    /// Every suite there is.
    pub const ALL: [Self; 5] =
        [Self::Aes256Gcm, Self::Aes256GcmSiv, Self::ChaCha20Poly1305, Self::ChaCha20, Self::Guest];

    /// The number in records and descriptors.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The suite with this number, if there is one.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.id() == id)
    }

    /// The name in configuration and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::Aes256GcmSiv => "aes-256-gcm-siv",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::ChaCha20 => "chacha20",
            Self::Guest => "guest",
        }
    }

    /// Does it prove that a block is what was sealed? Only such a suite can be the outermost layer.
    #[must_use]
    pub const fn authenticates(self) -> bool {
        match self {
            Self::Aes256Gcm | Self::Aes256GcmSiv | Self::ChaCha20Poly1305 => true,
            Self::ChaCha20 | Self::Guest => false,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name under which a layer's key is derived: 1 to 32 characters of `a-z0-9-`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyLabel {
    bytes: [u8; MAX_LABEL],
    len: u8,
}

impl KeyLabel {
    /// The label of an authenticating layer that was given none.
    pub const OUTER: Self = Self::fixed(b"outer");
    /// The label of an inner layer that was given none.
    pub const INNER: Self = Self::fixed(b"inner");

    const fn fixed(text: &[u8; 5]) -> Self {
        let mut bytes = [0; MAX_LABEL];
        let mut at = 0;
        while at < text.len() {
            bytes[at] = text[at];
            at += 1;
        }
        Self { bytes, len: 5 }
    }

    /// Checks a label.
    ///
    /// # Errors
    /// [`StackError::Label`] when it is empty, longer than 32 bytes, or holds another character.
    pub fn new(text: &str) -> Result<Self, StackError> {
        let allowed = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        let source = text.as_bytes();
        let len = u8::try_from(source.len()).ok().filter(|len| (1..=MAX_LABEL).contains(&usize::from(*len)));
        let (Some(len), true) = (len, source.iter().all(allowed)) else {
            return Err(StackError::Label { label: text.chars().take(MAX_LABEL + 1).collect() });
        };
        let mut bytes = [0; MAX_LABEL];
        for (to, from) in bytes.iter_mut().zip(source) {
            *to = *from;
        }
        Ok(Self { bytes, len })
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.len)).and_then(|used| std::str::from_utf8(used).ok()).unwrap_or_default()
    }
}

impl fmt::Debug for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// One layer: what it computes, and the name of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layer {
    /// What it computes.
    pub suite: Suite,
    /// The name its key is derived under.
    pub label: KeyLabel,
}

impl Layer {
    /// A layer under the default label of its kind: `outer` when it authenticates, else `inner`.
    #[must_use]
    pub const fn plain(suite: Suite) -> Self {
        Self { suite, label: if suite.authenticates() { KeyLabel::OUTER } else { KeyLabel::INNER } }
    }
}

/// The layers around a block, innermost first: at most one inner layer, then exactly one that authenticates.
///
/// Its text form lists them in that order, `chacha20 + aes-256-gcm`; a label other than the default follows a
/// colon, `chacha20:archive + aes-256-gcm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stack {
    inner: Option<Layer>,
    outer: Layer,
}

impl Stack {
    /// Checks a list of layers, innermost first.
    ///
    /// # Errors
    /// [`StackError`]: none or too many layers, the last does not authenticate, another one does, or two share a label.
    pub fn new(layers: &[Layer]) -> Result<Self, StackError> {
        let (inner, outer) = match layers {
            [outer] => (None, *outer),
            [inner, outer] => (Some(*inner), *outer),
            _ => return Err(StackError::Layers { count: layers.len() }),
        };
        if !outer.suite.authenticates() {
            return Err(StackError::OutermostProvesNothing { suite: outer.suite });
        }
        if let Some(inner) = inner {
            if inner.suite.authenticates() {
                return Err(StackError::InnerAuthenticates { suite: inner.suite });
            }
            if inner.label == outer.label {
                return Err(StackError::SharedLabel { label: inner.label });
            }
        }
        Ok(Self { inner, outer })
    }

    /// One authenticating suite under the default label.
    ///
    /// # Errors
    /// [`StackError::OutermostProvesNothing`] for a suite that does not authenticate.
    pub fn single(suite: Suite) -> Result<Self, StackError> {
        Self::new(&[Layer::plain(suite)])
    }

    /// The layer applied first, if there are two.
    #[must_use]
    pub const fn inner(&self) -> Option<&Layer> {
        self.inner.as_ref()
    }

    /// The authenticating layer, applied last.
    #[must_use]
    pub const fn outer(&self) -> &Layer {
        &self.outer
    }

    /// All layers, innermost first.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.inner.iter().chain(std::iter::once(&self.outer))
    }

    /// Does a component compute one of the layers?
    #[must_use]
    pub fn needs_guest(&self) -> bool {
        self.inner.is_some_and(|layer| layer.suite == Suite::Guest)
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, layer) in self.layers().enumerate() {
            let joint = if at == 0 { "" } else { " + " };
            write!(f, "{joint}{}", layer.suite)?;
            if *layer != Layer::plain(layer.suite) {
                write!(f, ":{}", layer.label.as_str())?;
            }
        }
        Ok(())
    }
}

impl FromStr for Stack {
    type Err = StackError;

    fn from_str(text: &str) -> Result<Self, StackError> {
        let mut layers = Vec::with_capacity(MAX_LAYERS);
        for word in text.splitn(MAX_LAYERS + 1, '+').map(str::trim) {
            let (name, label) = word.split_once(':').map_or((word, None), |(name, label)| (name, Some(label)));
            let suite = Suite::ALL
                .into_iter()
                .find(|suite| suite.name() == name)
                .ok_or_else(|| StackError::UnknownSuite { name: name.chars().take(MAX_LABEL).collect() })?;
            let label = label.map_or(Ok(Layer::plain(suite).label), KeyLabel::new)?;
            layers.push(Layer { suite, label });
        }
        Self::new(&layers)
    }
}

/// The stacks that one epoch may use, by index: 1 to 16, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackList(Vec<Stack>);

impl StackList {
    /// Checks a list of stacks.
    ///
    /// # Errors
    /// [`StackError::Stacks`] when there are none or more than 16, [`StackError::Repeated`] when one is there twice.
    pub fn new(stacks: &[Stack]) -> Result<Self, StackError> {
        if !(1..=MAX_STACKS).contains(&stacks.len()) {
            return Err(StackError::Stacks { count: stacks.len() });
        }
        for (at, stack) in stacks.iter().enumerate() {
            if stacks.iter().take(at).any(|earlier| earlier == stack) {
                return Err(StackError::Repeated { at });
            }
        }
        Ok(Self(stacks.to_vec()))
    }

    /// The stack that records name by `index`.
    #[must_use]
    pub fn get(&self, index: StackIndex) -> Option<&Stack> {
        self.0.get(usize::from(index.0))
    }

    /// All of them, in order of their index.
    #[must_use]
    pub fn as_slice(&self) -> &[Stack] {
        &self.0
    }
}

impl From<Stack> for StackList {
    fn from(stack: Stack) -> Self {
        Self(vec![stack])
    }
}

/// Which of an epoch's stacks sealed a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StackIndex(pub u8);

/// Why layers do not make a stack, or stacks not a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// No layer, or more than two.
    #[error("a stack has 1 or {MAX_LAYERS} layers, this one {count}")]
    Layers {
        /// How many there were.
        count: usize,
    },
    /// The last layer does not authenticate.
    #[error(
        "the last layer of a stack must authenticate, and {suite} does not; end it with aes-256-gcm, aes-256-gcm-siv or chacha20-poly1305"
    )]
    OutermostProvesNothing {
        /// The last layer.
        suite: Suite,
    },
    /// An inner layer authenticates, and its tags have no place.
    #[error("{suite} adds tags, so it can only be the last layer of a stack")]
    InnerAuthenticates {
        /// The inner layer.
        suite: Suite,
    },
    /// Two layers would derive related keys.
    #[error("two layers of one stack have the key label {label:?}; give each its own")]
    SharedLabel {
        /// The label.
        label: KeyLabel,
    },
    /// A label that is none.
    #[error("key label {label:?} is not 1 to {MAX_LABEL} characters of a-z, 0-9 and -")]
    Label {
        /// Its first characters.
        label: String,
    },
    /// A name that is none.
    #[error(
        "no suite is named {name:?}; there are aes-256-gcm, aes-256-gcm-siv, chacha20-poly1305, chacha20 and guest"
    )]
    UnknownSuite {
        /// Its first characters.
        name: String,
    },
    /// No stack, or more than 16.
    #[error("an epoch has 1 to {MAX_STACKS} stacks, this one {count}")]
    Stacks {
        /// How many there were.
        count: usize,
    },
    /// The same stack twice.
    #[error("stack {at} repeats an earlier one")]
    Repeated {
        /// The index of the second.
        at: usize,
    },
}
