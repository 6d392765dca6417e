package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"sluice/routing"
)

// configFlag names the file that may hold the other flags of a command.
const configFlag = "config"

// registerConfig adds --config to a command whose other flags are registered.
func registerConfig(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, configFlag, "", "`file` (YAML) with flags, such as \"listen: :8001\"; those on the command line win")
}

// readConfig sets flags from a YAML file that maps their names to values. What the
// command line says stays, but what the file says of it has to be valid too.
// All that is wrong is reported at once.
func readConfig(cmd *cobra.Command, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("--%s: %w", configFlag, err)
	}
	if err := setFlags(cmd.Flags(), file, data); err != nil {
		return &usageError{err, cmd.CommandPath()}
	}
	return nil
}

func setFlags(flags *pflag.FlagSet, file string, data []byte) error {
	root, err := routing.ReadYAML(file, data)
	if err != nil {
		return err
	}
	c := &config{flags: flags, file: file, lines: make(map[string]int)}
	if root.Kind != yaml.MappingNode {
		c.refuse(root, "the file", kindOf(root), "names of flags and their values, such as \"listen: :8001\"")
		return errors.Join(c.problems...)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		c.entry(root.Content[i], root.Content[i+1])
	}
	return errors.Join(c.problems...)
}

// config is a file of flags that is being read.
type config struct {
	flags    *pflag.FlagSet
	file     string
	lines    map[string]int // by name: where it was first
	problems []error
}

func (c *config) refuse(at *yaml.Node, field, got, want string) {
	c.problems = append(c.problems, &routing.FieldError{File: c.file, Line: at.Line, Field: field, Got: got, Want: want})
}

// entry sets one flag.
func (c *config) entry(key, value *yaml.Node) {
	name := key.Value
	flag := c.flags.Lookup(name)
	switch first, again := c.lines[name]; {
	case key.Kind != yaml.ScalarNode || flag == nil || name == configFlag || name == "help":
		c.refuse(key, name, kindOf(key), "one of "+strings.Join(c.names(), ", "))
		return
	case again:
		c.refuse(key, name, "a second value", fmt.Sprintf("one: there is one in line %d", first))
		return
	case value.Kind != yaml.ScalarNode || value.Tag == "!!null":
		c.refuse(value, name, kindOf(value), accepted(flag))
		return
	}
	c.lines[name] = key.Line
	given, byHand := flag.Value.String(), flag.Changed
	if err := c.flags.Set(name, value.Value); err != nil {
		c.refuse(value, name, kindOf(value), accepted(flag))
		return
	}
	if byHand {
		_ = flag.Value.Set(given) // it was taken before
	}
}

// names are those of the flags that a file may set.
func (c *config) names() []string {
	var names []string
	c.flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != configFlag && f.Name != "help" && !f.Hidden {
			names = append(names, f.Name)
		}
	})
	slices.Sort(names)
	return names
}

// accepted says what a flag's values look like.
func accepted(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "true or false"
	case "duration":
		return "a duration such as 5s or 1m30s"
	case "string":
		return "text"
	default:
		return "a value of type " + f.Value.Type()
	}
}

// kindOf says what a node is, as far as an error should repeat it.
func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.Tag == "!!null":
		return "nothing"
	default:
		return fmt.Sprintf("%q", visible(n.Value, 64))
	}
}
