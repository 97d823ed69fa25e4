//! Nobody takes all of what there is for everybody: members have a share each, of connections and of requests.
//!
//! Workers of a cluster may all have one certificate, so their share is large; and what is left of it is enough for the others. So that one of
//! them does not take that of all who have the same certificate, those at one address have a part of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::identity::{Identity, Role};

/// Of so many things everybody may have all of them.
const FEW: usize = 8;

/// A member, and a member at an address.
type Whose = (Identity, Option<IpAddr>);

/// What there is, and how much of it each member has.
pub(crate) struct Shares {
    all: usize,
    taken: Mutex<HashMap<Whose, usize>>,
}

/// One of them, until it is dropped; one of nobody's is not counted.
pub(crate) struct Share(Option<(Arc<Shares>, [Whose; 2])>);

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

    /// Most that one with this role may have at one address.
    fn most_there(&self, role: Role) -> usize {
        match role {
            Role::Worker => (self.all / 2).max(FEW),
            Role::Coordinator | Role::Client | Role::Admin => self.most(role),
        }
    }

    /// One for a member at an address, unless it has as many as it may. Whoever did not have to say who it is may have all.
    pub(crate) fn take(self: &Arc<Self>, member: Option<&Identity>, address: IpAddr) -> Option<Share> {
        let Some(member) = member else { return Some(Share(None)) };
        let of = [None, Some(address.to_canonical())].map(|address| (member.clone(), address));
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let most = [self.most(member.role), self.most_there(member.role)];
        let own = |of: &Whose| taken.get(of).copied().unwrap_or_default();
        if of.iter().zip(most).any(|(of, most)| own(of) >= most) {
            return None;
        }
        for of in &of {
            *taken.entry(of.clone()).or_default() += 1;
        }
        Some(Share(Some((self.clone(), of))))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some((shares, of)) = &self.0 else { return };
        let mut taken = shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for of in of {
            match taken.get_mut(of) {
                Some(own) if *own > 1 => *own -= 1,
                _ => drop(taken.remove(of)),
            }
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
        let [here, there, elsewhere] = [1, 2, 3].map(|host| IpAddr::from([10, 0, 0, host]));
        let all_of = |member: Option<&Identity>, address| -> Vec<Share> {
            std::iter::from_fn(|| shares.take(member, address)).take(200).collect()
        };
        let mut eves = all_of(Some(&eve), here);
        assert_eq!(eves.len(), 25);
        assert!(shares.take(Some(&ada), here).is_some());
        eves.pop();
        eves.push(shares.take(Some(&eve), there).unwrap());
        assert!(shares.take(Some(&eve), there).is_none());
        drop(eves);
        assert!(shares.taken.lock().unwrap().is_empty());
        // Those of one pool are many, and leave something to those at other addresses. Nobody is nobody.
        let worker = member(Role::Worker, "pool");
        let workers = [here, there, elsewhere].map(|address| all_of(Some(&worker), address));
        assert_eq!(workers.each_ref().map(Vec::len), [50, 25, 0]);
        // An address is the same however it is written.
        assert!(shares.take(Some(&worker), "::ffff:10.0.0.1".parse().unwrap()).is_none());
        drop(workers);
        assert!(shares.taken.lock().unwrap().is_empty());
        assert_eq!(all_of(None, here).len(), 200);
        assert_eq!(Shares::of(4).most(Role::Client), FEW);
    }
}
