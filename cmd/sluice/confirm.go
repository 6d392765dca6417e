package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"
)

// confirm asks the operator, if there is one: somebody who types into a terminal
// and sees one.
func (o *changeOptions) confirm(cmd *cobra.Command) error {
	if o.yes || o.output != asTable || !isTerminal(cmd.InOrStdin()) || !isTerminal(cmd.ErrOrStderr()) {
		return nil
	}
	fmt.Fprint(cmd.ErrOrStderr(), "make this change? [y/N] ")
	word, err := readLine(cmd.Context(), cmd.InOrStdin())
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(word)) {
	case "y", "yes":
		return nil
	}
	return errNotConfirmed
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(f.Fd())
}

// readLine reads until the end of a line or of ctx; then what goes on waiting for
// the line ends with the process.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	typed := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n') // what is not a yes is a no
		typed <- line
	}()
	select {
	case line := <-typed:
		return line, nil
	case <-ctx.Done():
		return "", errNotConfirmed
	}
}
