package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sluice/bench/peer"
)

// makeCertificate writes a certificate for 127.0.0.1 with its key into a folder, and
// returns what a client needs to trust it. The key is an elliptic curve's, as most are now.
// Others may read it: a proxy started by root gives its workers to another user, and
// nothing is protected by it.
func makeCertificate(folder string) (*peer.TLS, *tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	files := &peer.TLS{
		Cert: filepath.Join(folder, "cert.pem"), Key: filepath.Join(folder, "key.pem"), Both: filepath.Join(folder, "both.pem"),
	}
	for name, text := range map[string][]byte{files.Cert: cert, files.Key: private, files.Both: slices.Concat(cert, private)} {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return nil, nil, fmt.Errorf("certificate: %w", err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return files, &tls.Config{RootCAs: pool}, nil
}
