// Command validateproto writes buf/validate/validate.proto below the folder named by its argument.
//
// The routing schema imports that file. buf would fetch it from its own schema registry; here it is
// printed from the descriptor that the Go module of protovalidate carries, so that generating code
// needs no more than the Go module proxy, no foreign schema is kept in the repository, and the rules
// compiled into the schema are those the program links. The version is the one in tools/go.mod.
package main

import (
	"fmt"
	"os"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: validateproto FOLDER")
		os.Exit(2)
	}
	if err := export(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "validateproto:", err)
		os.Exit(1)
	}
}

// export prints the schema below folder, under the path other schemas import it by.
func export(folder string) error {
	var printer protoprint.Printer
	return printer.PrintProtosToFileSystem([]protoreflect.FileDescriptor{validate.File_buf_validate_validate_proto}, folder)
}
