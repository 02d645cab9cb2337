package callback_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/shape"
)

// clientCertificate is a certificate and its key, PEM.
func clientCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "longline"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", text)
}

func TestClientCertificateThroughTheProxy(t *testing.T) {
	certificate, key := clientCertificate(t)
	var names []string
	receiver := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		names = append(names, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(certificate))
	receiver.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	receiver.StartTLS()
	defer receiver.Close()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw})

	p := newEgress(t)
	e := callback.New(callback.Options{Dialing: p.dialing(t), Linger: time.Millisecond})
	m := newMemory()
	m.publish("", "")
	ended := make(chan callback.Result, 1)
	auth := &shape.Auth{MTLS: &shape.MTLS{Certificate: certificate, Key: key, CA: string(authority)}}
	if err := auth.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Deliver(callback.Subscription{
		Name: "crm-42", Target: callback.Target{URL: receiver.URL, Auth: auth}, Position: event.Position{cursor(0)},
	}, m, m, func(r callback.Result) { ended <- r }); err != nil {
		t.Fatal(err)
	}
	if r := <-ended; r.Outcome != callback.CaughtUp || m.position() != 2 {
		t.Errorf("got outcome %v at %d, want both delivered; the status was %+v", r.Outcome, m.position(), r.Status)
	}
	if len(names) != 2 || names[0] != "longline" {
		t.Errorf("the receiver saw certificates of %v, want longline's twice", names)
	}
	ctx, cancel := contextFor(5 * time.Second)
	defer cancel()
	e.Close(ctx)

	_, other := clientCertificate(t)
	if err := (&shape.Auth{MTLS: &shape.MTLS{Certificate: certificate, Key: other}}).Check(); err == nil {
		t.Error("a key that doesn't fit its certificate is taken")
	}
}
