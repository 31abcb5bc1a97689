// Conformance fixture on the Go SDK: what servers/fixture.json describes, in both eras.
//
//	server --fixture FILE [--port N] [--stdio] [--era both|modern|legacy] [--scheme NAME] [--cancelled FILE]
//
// modern: answers nothing but 2026-07-28. legacy: knows no other revisions than those with `initialize`. --scheme and
// --cancelled as in servers/offer.mjs.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	modern       = "2026-07-28"
	step         = 50 * time.Millisecond
	instructions = "Fixture of the conformance suite."
)

var (
	file      = flag.String("fixture", "", "fixture.json")
	port      = flag.Int("port", 0, "any by default")
	stdio     = flag.Bool("stdio", false, "")
	era       = flag.String("era", "both", "both, modern or legacy")
	scheme    = flag.String("scheme", "test", "the scheme of its URIs")
	cancelled = flag.String("cancelled", "", "counts cancelled calls beyond the life of a process")
)

type fixture struct {
	Tools []struct {
		Definition json.RawMessage `json:"definition"`
		Result     json.RawMessage `json:"result"`
		Dialog     *dialog         `json:"dialog"`
	} `json:"tools"`
	ExtraTool     json.RawMessage            `json:"extra_tool"`
	Prompts       []*mcp.Prompt              `json:"prompts"`
	PromptDialogs map[string]*dialog         `json:"prompt_dialogs"`
	Resources     []*mcp.Resource            `json:"resources"`
	Templates     []*mcp.ResourceTemplate    `json:"templates"`
	Contents      map[string]json.RawMessage `json:"contents"`
	Image         json.RawMessage            `json:"image"`
	Completions   []string                   `json:"completions"`
}

// A peer is the server with what its calls change for everybody.
type peer struct {
	*mcp.Server
	fixture   fixture
	extra     sync.Mutex
	shown     bool
	cancelled atomic.Int64
}

func main() {
	flag.Parse()
	p := &peer{fixture: load()}
	p.offer()
	if *stdio {
		if err := p.Run(context.Background(), &mcp.StdioTransport{}); err != nil {
			log.Fatal(err)
		}
		return
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() { <-ended; os.Exit(0) }()
	fmt.Printf("listening %d\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, p.handler()))
}

func load() (loaded fixture) {
	bytes, err := os.ReadFile(*file)
	if err != nil {
		log.Fatal(err)
	}
	text := strings.ReplaceAll(string(bytes), "test://", *scheme+"://")
	text = strings.ReplaceAll(text, "ui://fixture/", "ui://"+*scheme+"/")
	must(json.Unmarshal([]byte(text), &loaded))
	return loaded
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func versions() []string {
	var chosen []string
	for _, version := range mcp.SupportedProtocolVersions() {
		if *era == "both" || (version >= modern) == (*era == "modern") {
			chosen = append(chosen, version)
		}
	}
	return chosen
}

// handler serves sessions and, beside them, requests without any.
func (p *peer) handler() http.Handler {
	get := func(*http.Request) *mcp.Server { return p.Server }
	sessions := mcp.NewStreamableHTTPHandler(get, &mcp.StreamableHTTPOptions{EventStore: mcp.NewMemoryEventStore(nil)})
	single := mcp.NewStreamableHTTPHandler(get, &mcp.StreamableHTTPOptions{Stateless: true, PropagateRequestCancellation: true})
	mux := http.NewServeMux()
	mux.HandleFunc("/mcp", func(w http.ResponseWriter, r *http.Request) {
		version := r.Header.Get("Mcp-Protocol-Version")
		without := version >= modern && *era != "legacy" || *era == "modern"
		if *era == "legacy" && version >= modern {
			http.Error(w, `{"jsonrpc":"2.0","error":{"code":-32000,"message":"unsupported protocol version"}}`, http.StatusBadRequest)
		} else if *era == "modern" && version < modern && r.Method == http.MethodPost {
			// The SDK answers `initialize` with a revision that it then refuses to speak.
			data := fmt.Sprintf(`{"supported":[%q],"requested":%q}`, modern, version)
			refused := `{"jsonrpc":"2.0","error":{"code":-32022,"message":"unsupported protocol version","data":` + data + `}}`
			w.Header().Set("Content-Type", "application/json")
			http.Error(w, refused, http.StatusBadRequest)
		} else if without {
			single.ServeHTTP(w, r)
		} else {
			sessions.ServeHTTP(w, r)
		}
	})
	return mux
}

// offer registers everything.
func (p *peer) offer() {
	p.Server = mcp.NewServer(&mcp.Implementation{Name: "fixture-go", Version: "1.0.0"}, &mcp.ServerOptions{
		Instructions:              instructions,
		SupportedProtocolVersions: versions(),
		CompletionHandler:         p.complete,
		SubscribeHandler:          func(context.Context, *mcp.SubscribeRequest) error { return nil },
		UnsubscribeHandler:        func(context.Context, *mcp.UnsubscribeRequest) error { return nil },
		SetCacheable:              func(_ context.Context, _ mcp.Request, c *mcp.Cacheable) { c.TTLMs, c.CacheScope = 0, "public" },
	})
	for _, each := range p.fixture.Tools {
		result, talk := each.Result, each.Dialog
		p.addTool(each.Definition, func(ctx context.Context, request *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return p.call(ctx, request, result, talk)
		})
	}
	for _, each := range p.fixture.Prompts {
		p.AddPrompt(each, p.prompt)
	}
	for _, each := range p.fixture.Resources {
		p.AddResource(each, p.read)
	}
	for _, each := range p.fixture.Templates {
		p.AddResourceTemplate(each, p.read)
	}
}

func (p *peer) addTool(definition json.RawMessage, handler mcp.ToolHandler) {
	var tool mcp.Tool
	must(json.Unmarshal(definition, &tool))
	p.AddTool(&tool, handler)
}

func (p *peer) complete(_ context.Context, request *mcp.CompleteRequest) (*mcp.CompleteResult, error) {
	values := []string{}
	for _, value := range p.fixture.Completions {
		if strings.HasPrefix(value, request.Params.Argument.Value) {
			values = append(values, value)
		}
	}
	return &mcp.CompleteResult{Completion: mcp.CompletionResultDetails{Values: values, Total: len(values)}}, nil
}

func (p *peer) read(_ context.Context, request *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
	uri := request.Params.URI
	var contents mcp.ResourceContents
	if kept, there := p.fixture.Contents[uri]; there {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{&contents}}, json.Unmarshal(kept, &contents)
	}
	found := regexp.MustCompile("^" + *scheme + "://template/([^/]+)/data$").FindStringSubmatch(uri)
	if found == nil {
		return nil, mcp.ResourceNotFoundError(uri)
	}
	text, err := json.Marshal(map[string]any{"id": found[1], "templateTest": true, "data": "Data for ID: " + found[1]})
	contents = mcp.ResourceContents{URI: uri, MIMEType: "application/json", Text: string(text)}
	return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{&contents}}, err
}

func said(text string) *mcp.PromptMessage {
	return &mcp.PromptMessage{Role: "user", Content: &mcp.TextContent{Text: text}}
}

func (p *peer) prompt(ctx context.Context, request *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
	given := request.Params.Arguments
	switch request.Params.Name {
	case "test_simple_prompt":
		return messages(said("This is a simple prompt for testing."))
	case "test_prompt_with_arguments":
		return messages(said(fmt.Sprintf("Prompt with arguments: arg1='%s', arg2='%s'", given["arg1"], given["arg2"])))
	case "test_prompt_with_embedded_resource":
		embedded := &mcp.ResourceContents{URI: given["resourceUri"], MIMEType: "text/plain", Text: "Embedded resource content for testing."}
		asked := &mcp.PromptMessage{Role: "user", Content: &mcp.EmbeddedResource{Resource: embedded}}
		return messages(asked, said("Please process the embedded resource above."))
	case "test_prompt_with_image":
		var image struct{ Data []byte }
		must(json.Unmarshal(p.fixture.Image, &image))
		shown := &mcp.PromptMessage{Role: "user", Content: &mcp.ImageContent{Data: image.Data, MIMEType: "image/png"}}
		return messages(shown, said("Please analyze the image above."))
	}
	talk := p.fixture.PromptDialogs[request.Params.Name]
	turn := turn{request.Session, request.ProtocolVersion() >= modern, plain(request.ClientCapabilities())}
	asked, sealed, text, err := turn.converse(ctx, talk, nil, request.Params.InputResponses, request.Params.RequestState)
	if err != nil || asked == nil {
		return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{said(text)}}, err
	}
	return &mcp.GetPromptResult{InputRequests: asked, RequestState: sealed}, nil
}

func messages(all ...*mcp.PromptMessage) (*mcp.GetPromptResult, error) {
	return &mcp.GetPromptResult{Messages: all}, nil
}

// plain is a value as JSON has it.
func plain(value any) map[string]any {
	text, err := json.Marshal(value)
	var made map[string]any
	if err == nil {
		err = json.Unmarshal(text, &made)
	}
	if err != nil {
		return nil
	}
	return made
}

// A turn is one request's way to its client.
type turn struct {
	session  *mcp.ServerSession
	modern   bool
	declared map[string]any
}

// errCannot says that the client cannot be asked; a tool's result for sessions, an error for requests without any.
type errCannot struct{ asked request }

func (e errCannot) Error() string { return "client does not support " + e.asked.Method }

// converse gives the text of a dialog, or what is still asked and the state to come back with.
func (t turn) converse(ctx context.Context, talk *dialog, arguments map[string]any, given mcp.InputResponseMap, sealed string) (mcp.InputRequestMap, string, string, error) {
	kept, err := unseal(sealed)
	if err != nil {
		return nil, "", "", &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: err.Error()}
	}
	responses := map[string]any{}
	for key, response := range given {
		responses[key] = plain(response)
	}
	for {
		asked, after, text := talk.advance(arguments, t.declared, kept, responses)
		if asked == nil {
			return nil, "", text, nil
		}
		for _, each := range asked {
			if !each.allowed(t.declared) {
				return nil, "", "", errCannot{each}
			}
		}
		requests, err := typed(asked, t.modern)
		if err != nil || t.modern {
			if talk.State {
				return requests, seal(after), "", err
			}
			return requests, "", "", err
		}
		kept = after
		if responses, err = t.ask(ctx, requests); err != nil {
			return nil, "", "", err
		}
	}
}

func typed(asked map[string]request, modern bool) (mcp.InputRequestMap, error) {
	for key, each := range asked {
		if each.Params["mode"] == "url" && !modern {
			each.Params["elicitationId"] = key
		}
	}
	text, err := json.Marshal(asked)
	if err != nil {
		return nil, err
	}
	var requests mcp.InputRequestMap
	return requests, json.Unmarshal(text, &requests)
}

// ask sends the requests of a round at once.
func (t turn) ask(ctx context.Context, requests mcp.InputRequestMap) (map[string]any, error) {
	type answer struct {
		key   string
		value any
		err   error
	}
	answers := make(chan answer, len(requests))
	for key, each := range requests {
		go func() {
			var value any
			var err error
			switch params := each.(type) {
			case *mcp.ElicitParams:
				value, err = t.session.Elicit(ctx, params)
			case *mcp.CreateMessageParams:
				value, err = t.session.CreateMessage(ctx, params)
			case *mcp.CreateMessageWithToolsParams:
				value, err = t.session.CreateMessageWithTools(ctx, params)
			case *mcp.ListRootsParams:
				value, err = t.session.ListRoots(ctx, params)
			}
			answers <- answer{key, value, err}
		}()
	}
	responses := map[string]any{}
	for range requests {
		given := <-answers
		if given.err != nil {
			return nil, given.err
		}
		responses[given.key] = plain(given.value)
	}
	return responses, nil
}
