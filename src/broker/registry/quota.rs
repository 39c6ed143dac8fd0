//! What each user has.

use super::Registry;
use crate::broker::Refusal;

/// Connections and names of one user.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    connections: u32,
    names: u32,
}

impl<F> Registry<F> {
    fn usage(&self, user: u32) -> Usage {
        self.users.get(&user).copied().unwrap_or_default()
    }

    pub(super) fn count_connection(&mut self, user: u32) -> Result<(), Refusal> {
        let usage = self.usage(user);
        if usage.connections >= self.quotas.user_connections {
            return Err(Refusal::Quota);
        }
        if self.parties.len() >= self.quotas.connections as usize {
            return Err(Refusal::Full);
        }
        let more = Usage { connections: usage.connections.saturating_add(1), ..usage };
        self.users.insert(user, more).map_err(|_| Refusal::Exhausted)
    }

    pub(super) fn discount_connection(&mut self, user: u32) {
        let Some(usage) = self.users.get_mut(&user) else { return };
        usage.connections = usage.connections.saturating_sub(1);
        if usage.connections == 0 {
            self.users.remove(&user);
        }
    }

    pub(super) fn count_name(&mut self, user: u32) -> Result<(), Refusal> {
        if self.usage(user).names >= self.quotas.user_names {
            return Err(Refusal::Quota);
        }
        if self.names.len() >= self.quotas.names as usize {
            return Err(Refusal::Full);
        }
        if let Some(usage) = self.users.get_mut(&user) {
            usage.names = usage.names.saturating_add(1);
        }
        Ok(())
    }

    pub(super) fn discount_names(&mut self, user: u32, names: u32) {
        if let Some(usage) = self.users.get_mut(&user) {
            usage.names = usage.names.saturating_sub(names);
        }
    }
}
