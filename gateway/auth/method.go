package auth

import (
	"crypto/rsa"

	"github.com/golang-jwt/jwt/v5"
)

// strict returns the method by which a signature is looked at. The library's
// own takes PS* signatures with salts of any length; they are to be as long as
// the hash (RFC 7518 §3.5).
func strict(m jwt.SigningMethod) jwt.SigningMethod {
	pss, ok := m.(*jwt.SigningMethodRSAPSS)
	if !ok {
		return m
	}
	return &jwt.SigningMethodRSAPSS{
		SigningMethodRSA: pss.SigningMethodRSA, Options: pss.Options,
		VerifyOptions: &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash},
	}
}
