package webhook

// HeaderText is what tests look at from inside.
var HeaderText = headerText
