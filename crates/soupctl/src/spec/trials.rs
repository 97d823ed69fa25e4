//! The options of recipes that try candidates one by one. Another recipe does not look at them, so they are refused beside it; those of a
//! cook file are passed over, and said to be, where the command line names another recipe than the file was written for.

use soup_core::recipe::RecipeKind;
use soup_core::{Error, Result};

use crate::choices::InitName;
use crate::cookfile::CookOptions;

/// What decides which of them mean something.
#[derive(Clone, Copy)]
struct Looks {
    kind: RecipeKind,
    /// Whether a learned soup begins with a greedy one.
    from_greedy: bool,
}

impl Looks {
    fn of(options: &CookOptions) -> Looks {
        let kind = options.recipe.map(RecipeKind::from).unwrap_or_default();
        Looks { kind, from_greedy: options.init == Some(InitName::Greedy) }
    }

    /// Whether it looks at the option called `name`.
    fn at(self, name: &str) -> bool {
        match (self.kind, name) {
            (RecipeKind::Greedy, _) => true,
            (RecipeKind::Pruned, name) => name != "max-ingredients",
            // It makes one pass.
            (RecipeKind::Learned, name) => self.from_greedy && name != "passes",
            (RecipeKind::Uniform | RecipeKind::BestSingle | RecipeKind::Weighted, _) => false,
        }
    }
}

/// Those that are given.
fn given(o: &CookOptions) -> impl Iterator<Item = &'static str> {
    let all = [
        ("order", o.order.is_some()),
        ("accept", o.accept.is_some()),
        ("alpha", o.alpha.is_some()),
        ("max-ingredients", o.max_ingredients.is_some()),
        ("passes", o.passes.is_some()),
    ];
    all.into_iter().filter(|(_, given)| *given).map(|(name, _)| name)
}

/// Refuses one that the recipe does not look at.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) naming it.
pub(super) fn check(options: &CookOptions) -> Result<()> {
    let looks = Looks::of(options);
    let Some(name) = given(options).find(|name| !looks.at(name)) else { return Ok(()) };
    let whose = match name {
        "max-ingredients" => "the greedy recipe",
        _ => "the greedy and the pruned recipe",
    };
    let kind = looks.kind.name();
    Err(Error::usage(format!("--{name} belongs to {whose}, and this one is {kind}: leave it out")))
}

/// Takes from `file` what the recipe that `flags` name instead of its own does not look at, and says so.
pub(super) fn moot(flags: &CookOptions, file: &mut CookOptions) -> Option<String> {
    let recipe = flags.recipe.filter(|recipe| file.recipe != Some(*recipe))?;
    let looks = Looks::of(&CookOptions {
        recipe: Some(recipe),
        init: flags.init.or(file.init),
        ..CookOptions::default()
    });
    // The flag beside such a recipe is refused with the rest of what the run is asked for.
    let ranked_by = file.ranked_by.is_some().then_some("ranked-by");
    let moot: Vec<&str> = given(file).chain(ranked_by).filter(|name| !looks.at(name)).collect();
    for name in &moot {
        match *name {
            "order" => file.order = None,
            "accept" => file.accept = None,
            "alpha" => file.alpha = None,
            "max-ingredients" => file.max_ingredients = None,
            "ranked-by" => file.ranked_by = None,
            _ => file.passes = None,
        }
    }
    let kind = looks.kind.name();
    (!moot.is_empty()).then(|| {
        format!("the cook file's {} means nothing to --recipe {kind}, and is passed over", moot.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choices::{AcceptRule, CandidateOrder, RecipeName};

    fn all() -> CookOptions {
        CookOptions {
            order: Some(CandidateOrder::Random),
            accept: Some(AcceptRule::Significant),
            alpha: Some(0.1),
            max_ingredients: Some(2),
            passes: Some(3),
            ranked_by: Some("scores.csv".to_owned()),
            ..CookOptions::default()
        }
    }

    fn with(recipe: RecipeName, options: CookOptions) -> CookOptions {
        CookOptions { recipe: Some(recipe), ..options }
    }

    #[test]
    fn what_a_recipe_does_not_look_at_is_refused_by_name() {
        let none = CookOptions::default;
        let each = [
            ("--order", CookOptions { order: all().order, ..none() }),
            ("--accept", CookOptions { accept: all().accept, ..none() }),
            ("--alpha", CookOptions { alpha: all().alpha, ..none() }),
            ("--max-ingredients", CookOptions { max_ingredients: all().max_ingredients, ..none() }),
            ("--passes", CookOptions { passes: all().passes, ..none() }),
        ];
        let refused =
            |recipe, options: &CookOptions| check(&with(recipe, options.clone())).err().map(|e| e.chain());
        for (name, options) in &each {
            for recipe in
                [RecipeName::Uniform, RecipeName::BestSingle, RecipeName::Weighted, RecipeName::Learned]
            {
                let error = refused(recipe, options).unwrap();
                assert!(error.starts_with(name) && error.contains("this one is"), "{error}");
            }
            assert_eq!(refused(RecipeName::Greedy, options), None);
            assert_eq!(refused(RecipeName::Pruned, options).is_some(), *name == "--max-ingredients");
            let from_greedy = CookOptions { init: Some(InitName::Greedy), ..options.clone() };
            assert_eq!(refused(RecipeName::Learned, &from_greedy).is_some(), *name == "--passes");
        }
    }

    #[test]
    fn a_cook_file_for_another_recipe_is_passed_over_aloud() {
        let moot_of = |recipe, own: Option<RecipeName>| {
            let mut file = CookOptions { recipe: own, ..all() };
            let said = moot(&with(recipe, CookOptions::default()), &mut file);
            (said, file)
        };
        let (said, file) = moot_of(RecipeName::Uniform, None);
        assert_eq!(
            said.unwrap(),
            "the cook file's order, accept, alpha, max-ingredients, passes, ranked-by means nothing to --recipe uniform, and is passed over"
        );
        assert_eq!(file, CookOptions::default());
        let (said, file) = moot_of(RecipeName::Pruned, Some(RecipeName::Greedy));
        assert!(said.unwrap().contains("max-ingredients") && file.max_ingredients.is_none());
        assert_eq!((file.passes, file.ranked_by), (Some(3), all().ranked_by));
        // The file contradicts itself.
        let (said, file) = moot_of(RecipeName::Uniform, Some(RecipeName::Uniform));
        assert_eq!((said, file), (None, with(RecipeName::Uniform, all())));
        assert_eq!(moot(&CookOptions::default(), &mut all()), None);
    }
}
