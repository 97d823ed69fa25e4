//! Nobody takes all of what there is for everybody: members have a share each, of connections and of requests.
//!
//! Workers of a cluster may all have one certificate, so their share is large; and what is left of it is enough for the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::identity::{Identity, Role};

/// Of so many things everybody may have all of them.
const FEW: usize = 8;

/// What there is, and how much of it each member has.
pub(crate) struct Shares {
    all: usize,
    taken: Mutex<HashMap<Identity, usize>>,
}

/// One of them, until it is dropped; one of nobody's is not counted.
pub(crate) struct Share(Option<(Arc<Shares>, Identity)>);

impl Shares {
    /// Of so many things.
    pub(crate) fn of(all: usize) -> Arc<Shares> {
        Arc::new(Shares { all, taken: Mutex::default() })
    }

    /// Most that one with this role may have.
    pub(crate) fn most(&self, role: Role) -> usize {
        let most = match role {
            Role::Worker => self.all - self.all / 4,
            Role::Coordinator | Role::Client | Role::Admin => self.all / 4,
        };
        most.max(FEW)
    }

    /// One for a member, unless it has as many as it may. Whoever did not have to say who it is may have all.
    pub(crate) fn take(self: &Arc<Self>, member: Option<&Identity>) -> Option<Share> {
        let Some(member) = member else { return Some(Share(None)) };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(member).copied().unwrap_or_default();
        if own >= self.most(member.role) {
            return None;
        }
        taken.insert(member.clone(), own + 1);
        Some(Share(Some((self.clone(), member.clone()))))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some((shares, member)) = &self.0 else { return };
        let mut taken = shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(member) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(member)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_and_what_is_given_back_can_be_had_again() {
        let shares = Shares::of(100);
        let member = |role, name| Identity::new("lab", role, name).unwrap();
        let (eve, ada) = (member(Role::Client, "eve"), member(Role::Client, "ada"));
        let mut eves: Vec<Share> = std::iter::from_fn(|| shares.take(Some(&eve))).take(100).collect();
        assert_eq!(eves.len(), 25);
        assert!(shares.take(Some(&ada)).is_some());
        eves.pop();
        eves.push(shares.take(Some(&eve)).unwrap());
        assert!(shares.take(Some(&eve)).is_none());
        drop(eves);
        assert!(shares.taken.lock().unwrap().is_empty());
        // Those of one pool are many, and nobody is nobody.
        let worker = member(Role::Worker, "pool");
        let workers: Vec<Share> = std::iter::from_fn(|| shares.take(Some(&worker))).take(100).collect();
        assert_eq!(workers.len(), 75);
        assert_eq!(std::iter::from_fn(|| shares.take(None)).take(200).count(), 200);
        assert_eq!(Shares::of(4).most(Role::Client), FEW);
    }
}
