//! Who may ask for what: one table, by method and role.

use std::borrow::Cow;

use crate::identity::{Identity, Role};

/// Who may call what. What is not here nobody may.
const RIGHTS: [(&str, &[Role]); 8] = [
    ("/soup.v1.Coordinator/Work", &[Role::Worker]),
    ("/soup.v1.Coordinator/Submit", &[Role::Client, Role::Admin]),
    ("/soup.v1.Coordinator/Watch", &[Role::Client, Role::Admin]),
    ("/soup.v1.Coordinator/Cancel", &[Role::Client, Role::Admin]),
    ("/soup.v1.Coordinator/List", &[Role::Client, Role::Admin]),
    ("/soup.v1.Coordinator/Judges", &[Role::Client, Role::Admin]),
    ("/soup.v1.Coordinator/Probe", &[Role::Client, Role::Admin]),
    ("/soup.v1.Blends/Fetch", &[Role::Worker]),
];

/// Whether a member with this role may call the method at `path`, such as `/soup.v1.Coordinator/Work`.
#[must_use]
pub fn may_call(role: Role, path: &str) -> bool {
    RIGHTS.iter().any(|(method, roles)| *method == path && roles.contains(&role))
}

/// Who a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody in this process, or whoever reaches a server that speaks plain text.
    Anybody,
    /// A member of the cluster, which proved that.
    Member(Identity),
}

impl Caller {
    /// Who a run that it submits is recorded as asked for by: a client by its name; anybody else by role and name, which with the slash
    /// between them are no client's name.
    #[must_use]
    pub fn client(&self) -> Option<Cow<'_, str>> {
        match self {
            Caller::Anybody => None,
            Caller::Member(Identity { role: Role::Client, name, .. }) => Some(name.into()),
            Caller::Member(Identity { role, name, .. }) => Some(format!("{}/{name}", role.name()).into()),
        }
    }

    /// The client that is kept to places of its own, where clients are; admins are not.
    #[must_use]
    pub fn kept_to_places(&self) -> Option<&str> {
        match self {
            Caller::Member(Identity { role: Role::Client, name, .. }) => Some(name),
            _ => None,
        }
    }

    /// Whether a run that `client` asked for is as good as its own. Runs of nobody were submitted where nobody is told from anybody:
    /// they are for admins. Those that an admin asked for before roles were recorded are taken for those of a client of its name.
    #[must_use]
    pub fn may_touch(&self, client: Option<&str>) -> bool {
        match self {
            Caller::Anybody => true,
            Caller::Member(Identity { role: Role::Admin, .. }) => true,
            Caller::Member(_) => client.is_some() && client == self.client().as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_methods_that_there_are() {
        let coordinator = soup_proto::v1::coordinator_server::SERVICE_NAME;
        let blends = soup_proto::v1::blends_server::SERVICE_NAME;
        for (path, roles) in RIGHTS {
            let service = path.trim_start_matches('/').split('/').next().unwrap();
            assert!([coordinator, blends].contains(&service), "{path}");
            assert!(!roles.is_empty(), "{path}");
        }
    }

    #[test]
    fn each_role_has_its_own_rights() {
        let methods = |role| RIGHTS.iter().map(|(p, _)| *p).filter(|p| may_call(role, p)).collect::<Vec<_>>();
        assert_eq!(methods(Role::Worker), ["/soup.v1.Coordinator/Work", "/soup.v1.Blends/Fetch"]);
        assert_eq!(methods(Role::Client).len(), 6);
        assert_eq!(methods(Role::Client), methods(Role::Admin));
        assert!(methods(Role::Coordinator).is_empty());
        for path in
            ["", "/", "/soup.v1.Coordinator/work", "/soup.v1.Coordinator/Work/", "//soup.v1.Coordinator/Work"]
        {
            assert!(Role::ALL.into_iter().all(|role| !may_call(role, path)), "{path}");
        }
    }

    #[test]
    fn runs_are_for_whoever_asked_for_them_and_for_admins() {
        let member = |role, name| Caller::Member(Identity::new("lab", role, name).unwrap());
        let (ada, root) = (member(Role::Client, "ada"), member(Role::Admin, "root"));
        assert!(ada.may_touch(Some("ada")) && !ada.may_touch(Some("bob")) && !ada.may_touch(None));
        assert!(root.may_touch(Some("ada")) && root.may_touch(None));
        assert!(Caller::Anybody.may_touch(Some("ada")) && Caller::Anybody.may_touch(None));
        assert_eq!((ada.client().as_deref(), Caller::Anybody.client()), (Some("ada"), None));
        assert_eq!((ada.kept_to_places(), root.kept_to_places()), (Some("ada"), None));
    }

    #[test]
    fn an_admins_runs_are_not_those_of_a_client_of_its_name() {
        let member = |role| Caller::Member(Identity::new("lab", role, "ada").unwrap());
        let (client, admin) = (member(Role::Client), member(Role::Admin));
        let recorded = |caller: &Caller| caller.client().map(Cow::into_owned);
        assert_ne!(recorded(&client), recorded(&admin));
        assert!(
            client.may_touch(recorded(&client).as_deref()) && !client.may_touch(recorded(&admin).as_deref())
        );
        assert!(
            admin.may_touch(recorded(&client).as_deref()) && admin.may_touch(recorded(&admin).as_deref())
        );
        // As what is recorded of an admin no client can be called.
        Identity::new("lab", Role::Client, &recorded(&admin).unwrap()).unwrap_err();
    }
}
