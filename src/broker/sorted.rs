//! A map whose growth may fail without harm.

use alloc::vec::Vec;

use crate::machine::shrink;

/// Pairs in the order of their keys, in one piece of memory. What a stranger makes grow must be
/// able to say "no memory" (P4), and the maps of `alloc` cannot.
#[derive(Debug)]
pub(crate) struct Sorted<K, V> {
    pairs: Vec<(K, V)>,
}

/// There is no memory for one more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

impl<K: Ord, V> Sorted<K, V> {
    pub(crate) const fn new() -> Self {
        Self { pairs: Vec::new() }
    }

    fn find(&self, key: &K) -> Result<usize, usize> {
        self.pairs.binary_search_by(|(known, _)| known.cmp(key))
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let index = self.find(key).ok()?;
        self.pairs.get(index).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let index = self.find(key).ok()?;
        self.pairs.get_mut(index).map(|(_, value)| value)
    }

    /// Memory for one pair more: then the next insert does not fail.
    pub(crate) fn make_room(&mut self) -> Result<(), NoMemory> {
        self.pairs.try_reserve(1).map_err(|_| NoMemory)
    }

    /// Puts `value` in, in place of what was there under that key.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<(), NoMemory> {
        match self.find(&key) {
            Ok(index) => {
                if let Some(place) = self.pairs.get_mut(index) {
                    place.1 = value;
                }
            }
            Err(index) => {
                self.make_room()?;
                self.pairs.insert(index, (key, value));
            }
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.find(key).ok()?;
        let (_, value) = self.pairs.remove(index);
        self.shrink();
        Some(value)
    }

    /// Keeps those of which `keep` says so.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.pairs.retain(|(key, value)| keep(key, value));
        self.shrink();
    }

    /// After a crowd has left, its room goes too.
    fn shrink(&mut self) {
        if self.pairs.len().saturating_mul(4) < self.pairs.capacity() {
            let room = self.pairs.len().saturating_mul(2);
            shrink(&mut self.pairs, room);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Each value, in the order of their keys.
    #[cfg(feature = "driver")]
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.pairs.iter_mut().map(|(_, value)| value)
    }

    /// All values, in the order of their keys.
    #[cfg(feature = "driver")]
    pub(crate) fn into_values(self) -> impl Iterator<Item = V> {
        self.pairs.into_iter().map(|(_, value)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.pairs.iter().map(|(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_pairs_by_their_keys_and_gives_memory_back() {
        let mut map = Sorted::new();
        for key in [5, 1, 9, 3, 7] {
            map.insert(key, key * 10).unwrap();
        }
        map.insert(9, 0).unwrap();
        assert_eq!(map.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [1, 3, 5, 7, 9]);
        assert_eq!((map.get(&9), map.get(&2), map.len()), (Some(&0), None, 5));
        *map.get_mut(&1).unwrap() = 11;
        assert_eq!((map.remove(&1), map.remove(&1)), (Some(11), None));
        for key in 10..1000 {
            map.insert(key, 0).unwrap();
        }
        map.retain(|key, _| *key < 10);
        assert_eq!(map.len(), 4);
        assert!(map.pairs.capacity() < 100, "{}", map.pairs.capacity());
    }
}
