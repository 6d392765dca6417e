// Package labels tells how good predictions turned out to be, when the truth comes days later.
//
// Nothing is stored of a request: every answer carries an [Identity] that says which version has predicted what and
// when, signed by a [Signer], and whoever reports the truth gives it back. A [Monitor] has a [Version] for each
// version that takes labels; it checks and counts what is reported, adds up what all gateways have counted that share
// a store, and tells when a version errs more often than before. How good predictions were is computed from the
// counts (package score); what has changed, by the detectors of package change.
//
// On the path of a call there are [Version.Predicted], which counts, and [Signer.Append]. Everything here may be used
// concurrently unless it says otherwise.
package labels
