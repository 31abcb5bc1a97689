// Drives a server, or a gateway in front of several, with the Go SDK: every feature once.
//
//	client --targets FILE [--mode legacy|auto] [--sse] [--gateway] [--only FEATURE,...] [--skip FEATURE=REASON]
//	       --target NAME[=PREFIX[,SCHEME]]... URL
//	client --targets FILE --stdio 'COMMAND ARGS' --target NAME
//
// As clients/client.mjs, whose output it has. Flags stand before the URL, or after it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	modern    = "2026-07-28"
	legacy    = "2025-11-25"
	root      = "file:///project/one"
	logLevel  = "io.modelcontextprotocol/logLevel"
	wait      = 5 * time.Second        // for anything that must arrive
	quiet     = 300 * time.Millisecond // for anything that must not
	featureMs = 12 * time.Second       // for one feature
	eventMax  = 8 << 20
)

// A session is one connected client and everything that the server sent without being asked.
type session struct {
	*mcp.ClientSession
	given  options
	modern bool
	level  mcp.LoggingLevel

	seen     sync.Mutex
	logs     []*mcp.LoggingMessageParams
	updated  []string
	changed  map[string]int
	progress map[any][]float64
	tokens   int
}

func (s *session) note(change func()) {
	s.seen.Lock()
	defer s.seen.Unlock()
	change()
}

func open(ctx context.Context, given options) (*session, error) {
	s := &session{given: given, changed: map[string]int{}, progress: map[any][]float64{}}
	client := mcp.NewClient(&mcp.Implementation{Name: "agentlane-driver-go", Version: "1.0.0"}, &mcp.ClientOptions{
		Capabilities: &mcp.ClientCapabilities{
			RootsV2:     &mcp.RootCapabilities{ListChanged: true},
			Sampling:    &mcp.SamplingCapabilities{Tools: &mcp.SamplingToolsCapabilities{}},
			Elicitation: &mcp.ElicitationCapabilities{Form: &mcp.FormElicitationCapabilities{}, URL: &mcp.URLElicitationCapabilities{}},
		},
		CreateMessageWithToolsHandler: sampled,
		ElicitationHandler:            elicited,
		LoggingMessageHandler: func(_ context.Context, r *mcp.LoggingMessageRequest) {
			s.note(func() { s.logs = append(s.logs, r.Params) })
		},
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
			s.note(func() {
				token := r.Params.ProgressToken
				s.progress[token] = append(s.progress[token], r.Params.Progress)
			})
		},
		ResourceUpdatedHandler: func(_ context.Context, r *mcp.ResourceUpdatedNotificationRequest) {
			s.note(func() { s.updated = append(s.updated, r.Params.URI) })
		},
		ToolListChangedHandler:     func(context.Context, *mcp.ToolListChangedRequest) { s.note(func() { s.changed["tools"]++ }) },
		PromptListChangedHandler:   func(context.Context, *mcp.PromptListChangedRequest) { s.note(func() { s.changed["prompts"]++ }) },
		ResourceListChangedHandler: func(context.Context, *mcp.ResourceListChangedRequest) { s.note(func() { s.changed["resources"]++ }) },
	})
	client.AddRoots(&mcp.Root{URI: root, Name: "one"})
	var transport mcp.Transport = &mcp.StreamableClientTransport{Endpoint: given.url, MaxEventSize: eventMax}
	if given.stdio != "" {
		words := strings.Fields(given.stdio)
		transport = &mcp.CommandTransport{Command: exec.Command(words[0], words[1:]...)}
	} else if given.sse {
		transport = &mcp.SSEClientTransport{Endpoint: given.url}
	}
	wanted := &mcp.ClientSessionOptions{}
	if given.mode == "legacy" {
		wanted.ProtocolVersion = legacy
	}
	var err error
	s.ClientSession, err = client.Connect(ctx, transport, wanted)
	if err == nil {
		s.modern = s.InitializeResult().ProtocolVersion >= modern
	}
	return s, err
}

func sampled(_ context.Context, r *mcp.CreateMessageWithToolsRequest) (*mcp.CreateMessageWithToolsResult, error) {
	last := r.Params.Messages[len(r.Params.Messages)-1]
	text, _ := last.Content[0].(*mcp.TextContent)
	if text == nil {
		return nil, errors.New("no text")
	}
	content := []mcp.Content{&mcp.TextContent{Text: "reply to " + text.Text}}
	return &mcp.CreateMessageWithToolsResult{Role: "assistant", Model: "driver", Content: content}, nil
}

func elicited(_ context.Context, r *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
	if r.Params.Mode == "url" {
		return &mcp.ElicitResult{Action: "accept"}, nil
	}
	text, err := json.Marshal(r.Params.RequestedSchema)
	var form struct {
		Properties map[string]struct{ Type string }
		Required   []string
	}
	if err == nil {
		err = json.Unmarshal(text, &form)
	}
	content := map[string]any{}
	for _, name := range form.Required {
		switch form.Properties[name].Type {
		case "boolean":
			content[name] = true
		case "integer", "number":
			content[name] = 7
		default:
			content[name] = "answer to " + r.Params.Message
		}
	}
	return &mcp.ElicitResult{Action: "accept", Content: content}, err
}

// call gives a tool's result; progress tells on which token it arrives.
func (s *session) call(ctx context.Context, name string, arguments any, progress func(token string)) (*mcp.CallToolResult, error) {
	if arguments == nil {
		arguments = map[string]any{}
	}
	params := &mcp.CallToolParams{Name: name, Arguments: arguments, Meta: mcp.Meta{}}
	if progress != nil {
		s.note(func() { s.tokens++ })
		token := fmt.Sprintf("progress %d", s.tokens)
		params.SetProgressToken(token)
		progress(token)
	}
	if s.modern && s.level != "" {
		params.Meta[logLevel] = string(s.level)
	}
	result, err := s.CallTool(ctx, params)
	if err == nil && result.IsError {
		return nil, fmt.Errorf("%s: %s", name, textOf(result.Content))
	}
	return result, err
}

func (s *session) text(ctx context.Context, name string, arguments any) (string, error) {
	result, err := s.call(ctx, name, arguments, nil)
	if err != nil {
		return "", err
	}
	return textOf(result.Content), nil
}

func textOf(content []mcp.Content) string {
	var texts []string
	for _, block := range content {
		if text, is := block.(*mcp.TextContent); is {
			texts = append(texts, text.Text)
		}
	}
	return strings.Join(texts, "\n")
}

func (s *session) until(what string, ready func() bool) error {
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		done := false
		s.note(func() { done = ready() })
		if done {
			return nil
		}
	}
	return fmt.Errorf("%s did not happen within %v", what, wait)
}

type options struct {
	url, stdio, mode, targets string
	sse, gateway              bool
	only                      []string
	skip                      map[string]string
	names                     []string
}

func arguments() options {
	given := options{mode: "legacy", skip: map[string]string{}}
	words := os.Args[1:]
	next := func() string {
		if len(words) == 0 {
			return ""
		}
		word := words[0]
		words = words[1:]
		return word
	}
	for len(words) > 0 {
		switch word := next(); word {
		case "--targets":
			given.targets = next()
		case "--target":
			given.names = append(given.names, next())
		case "--mode":
			given.mode = next()
		case "--stdio":
			given.stdio = next()
		case "--only":
			given.only = strings.Split(next(), ",")
		case "--skip":
			feature, reason, _ := strings.Cut(next(), "=")
			given.skip[feature] = reason
		case "--sse":
			given.sse = true
		case "--gateway":
			given.gateway = true
		default:
			given.url = word
		}
	}
	return given
}

func main() {
	given := arguments()
	report := &reporter{given: given}
	targets, err := load(given)
	if err == nil {
		var s *session
		if s, err = open(context.Background(), given); err == nil {
			drive(s, targets, report)
			_ = s.Close()
		}
	}
	if err != nil {
		report.line("connect", "", func(context.Context) (string, error) { return "", err })
	}
	report.end()
}
