//! Setters for the configuration types of all crates, so that adding a field to a type does not break its
//! users.

/// Defines chainable setters for public fields, named like the fields: `config.packets(64).cache(0)`.
/// `as into` accepts values that convert to the field's type: a `&str` for a `String`, a bare value for an
/// `Option`. `as some` wraps the value in `Some`.
///
/// For the crates of this workspace; it may change in any version.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    (@value $value:ident) => { $value };
    (@value $value:ident into) => { $value.into() };
    (@value $value:ident some) => { Some($value) };
    ($type:ident { $($field:ident: $value:ty $(as $how:ident)?),* $(,)? }) => {
        impl $type {$(
            #[doc = concat!(
                "Sets the field [`", stringify!($field), "`](field@", stringify!($type), "::", stringify!($field), ")."
            )]
            #[must_use]
            #[inline]
            pub fn $field(mut self, $field: $value) -> Self {
                self.$field = $crate::setters!(@value $field $($how)?);
                self
            }
        )*}
    };
}
