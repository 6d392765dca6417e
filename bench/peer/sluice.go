package peer

import (
	"cmp"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/bench/process"
)

// Sluice is the gateway itself, either built from the working tree or a binary
// that is already there, so that two builds can be set against each other.
type Sluice struct {
	Label   string // the name in flags and tables; empty means the variant's
	Variant Variant
	Binary  string   // empty: build from Source into Folder
	Source  string   // root of the module
	Folder  string   // where a binary is built
	Env     []string // "KEY=value", added to its environment
}

// Name returns the label.
func (s *Sluice) Name() string {
	return cmp.Or(s.Label, s.Variant.Name, "sluice")
}

// Locate builds the binary unless one was given, and returns the revision it
// was built from.
func (s *Sluice) Locate(ctx context.Context) (string, error) {
	if s.Binary == "" {
		s.Binary = filepath.Join(s.Folder, "sluice")
		// As `make build` does it, so that what is measured is what is shipped;
		// with the revision, whatever GOFLAGS says, so that the report can name it.
		err := process.Build(ctx, s.Source, []string{"CGO_ENABLED=0"},
			"-trimpath", "-buildvcs=auto", "-o", s.Binary, "./cmd/sluice")
		if err != nil {
			return "", fmt.Errorf("build sluice: %w", err)
		}
	}
	info, err := buildinfo.ReadFile(s.Binary)
	if err != nil {
		return "", fmt.Errorf("sluice binary: %w", err)
	}
	version, clean := "unknown revision", false
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			version, clean = setting.Value[:min(12, len(setting.Value))], true
		case "vcs.modified": // comes after the revision
			if setting.Value == "true" {
				version, clean = version+" with changes", false
			}
		}
	}
	if !clean {
		// Two trees with changes have one revision.
		sum, err := hashOf(s.Binary)
		if err != nil {
			return "", fmt.Errorf("sluice binary: %w", err)
		}
		version += ", binary " + sum
	}
	return version + ", " + info.GoVersion, nil
}

// hashOf returns the first digits of a file's SHA-256.
func hashOf(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil))[:12], nil
}

// Launch starts the gateway as its variant says.
func (s *Sluice) Launch(site Site) Launch {
	args := []string{
		"serve",
		"--listen", site.Listen,
		"--admin", "127.0.0.1:0",
		"--routes", site.Folder + "/routes.yaml",
	}
	if site.TLS != nil {
		args = append(args, "--tls-cert", site.TLS.Cert, "--tls-key", site.TLS.Key)
	}
	routes := s.Variant.Routes
	if routes == nil {
		routes = AllPolicies
	}
	return Launch{
		Files: []File{{"routes.yaml", routes(site)}},
		Command: &process.Command{
			Path: s.Binary,
			Args: append(args, s.Variant.Args...),
			// Its own state folder: what a run leaves behind must not be what
			// the next one, or the user's own gateway, starts from.
			Env: slices.Concat([]string{"XDG_STATE_HOME=" + site.Folder}, site.goEnv(), s.Variant.Env, s.Env),
		},
	}
}

// ParseNamed reads NAME=PATH, an extra Sluice binary under a name of its own.
func ParseNamed(text string) (*Sluice, error) {
	name, path, ok := strings.Cut(text, "=")
	// The name becomes a folder's and has to survive in -peers, which has commas.
	if !ok || name == "" || path == "" || strings.ContainsAny(name, "/,") {
		return nil, fmt.Errorf("extra binary: got %q, want NAME=PATH, the name without slash and comma", text)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("extra binary %s: %w", name, err)
	}
	if _, err := os.Stat(absolute); err != nil {
		return nil, fmt.Errorf("extra binary %s: %w", name, err)
	}
	return &Sluice{Label: name, Binary: absolute}, nil
}
