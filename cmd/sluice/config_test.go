package main

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// configured is a command whose flags a file may set.
func configured(t *testing.T, text string, args ...string) (listen string, insecure bool, delay time.Duration, err error) {
	t.Helper()
	cmd := &cobra.Command{Use: "serve", SilenceErrors: true, SilenceUsage: true}
	var file string
	f := cmd.Flags()
	f.StringVar(&listen, "listen", ":1", "")
	f.BoolVar(&insecure, "insecure", false, "")
	f.DurationVar(&delay, "delay", time.Second, "")
	registerConfig(cmd, &file)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return readConfig(cmd, file) }
	cmd.SetArgs(append(args, "--config", write(t, t.TempDir()+"/serve.yaml", text)))
	err = cmd.Execute()
	return listen, insecure, delay, err
}

func TestConfigSetsFlagsAndTheCommandLineWins(t *testing.T) {
	listen, insecure, delay, err := configured(t, "listen: \":2\"\ninsecure: true\ndelay: 1m\n", "--delay", "3s")
	if err != nil || listen != ":2" || !insecure || delay != 3*time.Second {
		t.Errorf("got %s, %v, %v, %v; want :2 and true of the file, 3s of the command line", listen, insecure, delay, err)
	}
	listen, insecure, delay, err = configured(t, "# nothing\n")
	if err != nil || listen != ":1" || insecure || delay != time.Second {
		t.Errorf("got %s, %v, %v, %v of an empty file; want the defaults", listen, insecure, delay, err)
	}
}

// TestConfigSaysAllThatIsWrong, each with line, name, value and what is accepted.
func TestConfigSaysAllThatIsWrong(t *testing.T) {
	_, _, _, err := configured(t, `listn: ":2"
insecure: maybe
delay: 5
listen: {a: b}
listen: ":2"
listen: ":3"
config: other.yaml
insecure:
`, "--delay", "3s")
	if err == nil || exitCode(err) != exitUsage {
		t.Fatalf("got %v, want a usage error", err)
	}
	for _, want := range []string{
		`serve.yaml:1: listn: got "listn", want one of delay, insecure, listen`,
		`serve.yaml:2: insecure: got "maybe", want true or false`,
		`serve.yaml:3: delay: got "5", want a duration such as 5s`,
		`serve.yaml:4: listen: got a mapping, want text`,
		`serve.yaml:6: listen: got a second value, want one: there is one in line 5`,
		`serve.yaml:7: config: got "config", want one of`,
		`serve.yaml:8: insecure: got a second value`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	for text, want := range map[string]string{
		"- listen\n": "serve.yaml:1: the file: got a list, want names of flags",
		"a: [\n":     "serve.yaml:1: not YAML",
		"listen:\n":  "serve.yaml:1: listen: got nothing, want text",
	} {
		if _, _, _, err := configured(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
