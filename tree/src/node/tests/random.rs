//! Random keys and values of the kinds that nodes treat differently. One seed makes one run.

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub(super) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// How keys look.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys {
    /// Eight bytes, a small range, so that keys recur.
    Numbers,
    /// Up to five bytes of few letters: empty ones, zeros, prefixes of others, equal heads.
    Tiny,
    /// A long common start, then little.
    LongPrefix,
    /// One head for all, then numbers.
    EqualHeads,
    /// Anything.
    Any,
}

pub(super) const KEYS: [Keys; 5] = [Keys::Numbers, Keys::Tiny, Keys::LongPrefix, Keys::EqualHeads, Keys::Any];

/// How values look.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values {
    Empty,
    Eight,
    Varied,
}

pub(super) const VALUES: [Values; 3] = [Values::Empty, Values::Eight, Values::Varied];

impl Keys {
    pub(super) fn key(self, random: &mut Random) -> Vec<u8> {
        match self {
            Keys::Numbers => (random.below(500) as u64).to_be_bytes().to_vec(),
            Keys::Tiny => {
                let letters = [0, 1, b'a', 0xff];
                (0..random.below(6)).map(|_| letters[random.below(4)]).collect()
            }
            Keys::LongPrefix => {
                let mut key = vec![b'p'; 300];
                key.extend((0..random.below(3)).map(|_| random.next() as u8 & 7));
                key
            }
            Keys::EqualHeads => format!("head{:06}", random.below(300)).into_bytes(),
            Keys::Any => {
                let len = random.below(40);
                random.bytes(len)
            }
        }
    }

    /// A key that may or may not be near one of `keys`.
    pub(super) fn probe(self, random: &mut Random, keys: &[Vec<u8>]) -> Vec<u8> {
        let mut key = match keys.len() {
            0 => self.key(random),
            len => keys[random.below(len)].clone(),
        };
        match random.below(6) {
            0 => key.push(0),
            1 => drop(key.pop()),
            2 => key = self.key(random),
            3 => {
                if let Some(last) = key.last_mut() {
                    *last = last.wrapping_add(1);
                }
            }
            4 => key.insert(0, random.next() as u8),
            _ => {}
        }
        key
    }
}

impl Values {
    pub(super) fn value(self, random: &mut Random) -> Vec<u8> {
        match self {
            Values::Empty => Vec::new(),
            Values::Eight => random.bytes(8),
            Values::Varied => {
                let len = random.below(60);
                random.bytes(len)
            }
        }
    }
}
