package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const missingCapability = -32021

func text(value string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: value}}}
}

func failure(value string) *mcp.CallToolResult {
	result := text(value)
	result.IsError = true
	return result
}

// call runs a tool: a fixed result, a dialog, or something that is done.
func (p *peer) call(ctx context.Context, r *mcp.CallToolRequest, result json.RawMessage, talk *dialog) (*mcp.CallToolResult, error) {
	if result != nil {
		var fixed mcp.CallToolResult
		return &fixed, json.Unmarshal(result, &fixed)
	}
	given := map[string]any{}
	if len(r.Params.Arguments) > 0 {
		if err := json.Unmarshal(r.Params.Arguments, &given); err != nil {
			return nil, &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: err.Error()}
		}
	}
	if talk == nil {
		return p.do(ctx, r, given)
	}
	if talk.Progress > 0 {
		progress(ctx, r, talk.Progress, 2)
	}
	turn := turn{r.Session, r.ProtocolVersion() >= modern, plain(r.ClientCapabilities())}
	asked, sealed, said, err := turn.converse(ctx, talk, given, r.Params.InputResponses, r.Params.RequestState)
	if cannot, is := err.(errCannot); is {
		if !turn.modern {
			return failure(err.Error()), nil
		}
		return nil, refused(cannot.asked)
	}
	if err != nil || asked == nil {
		return text(said), err
	}
	return &mcp.CallToolResult{InputRequests: asked, RequestState: sealed}, nil
}

func refused(asked request) error {
	kind := map[string]string{"roots/list": "roots", "sampling/createMessage": "sampling", "elicitation/create": "elicitation"}[asked.Method]
	data, err := json.Marshal(map[string]any{"requiredCapabilities": map[string]any{kind: map[string]any{}}})
	if err != nil {
		return err
	}
	return &jsonrpc.Error{Code: missingCapability, Message: asked.Method + " is not declared", Data: data}
}

func progress(ctx context.Context, r *mcp.CallToolRequest, value, total float64) {
	if token := r.Params.GetProgressToken(); token != nil {
		message := fmt.Sprintf("step %v of %v", value, total)
		params := &mcp.ProgressNotificationParams{ProgressToken: token, Progress: value, Total: total, Message: message}
		_ = r.Session.NotifyProgress(ctx, params) // a client that has gone needs none
	}
}

func logged(ctx context.Context, r *mcp.CallToolRequest, data string) {
	_ = r.Session.Log(ctx, &mcp.LoggingMessageParams{Level: "info", Logger: "fixture", Data: data})
}

// do runs the tools whose result is not fixed and that ask nothing.
func (p *peer) do(ctx context.Context, r *mcp.CallToolRequest, given map[string]any) (*mcp.CallToolResult, error) {
	switch r.Params.Name {
	case "test_tool_with_logging":
		for _, said := range []string{"Tool execution started", "Tool processing data", "Tool execution completed"} {
			logged(ctx, r, said)
			time.Sleep(step)
		}
		return text("logged three messages"), nil
	case "test_logging_tool":
		logged(ctx, r, "logged once")
		return text("logged one message"), nil
	case "test_error_handling":
		return failure("This tool intentionally returns an error for testing"), nil
	case "test_tool_with_progress":
		for _, value := range []float64{0, 50, 100} {
			progress(ctx, r, value, 100)
			time.Sleep(step)
		}
		return text(fmt.Sprintf("progress token %v", r.Params.GetProgressToken())), nil
	case "test_reconnection":
		if r.Extra != nil && r.Extra.CloseSSEStream != nil {
			r.Extra.CloseSSEStream(mcp.CloseSSEStreamArgs{RetryAfter: step})
		}
		time.Sleep(2 * step)
		return text("Answered after the stream was closed"), nil
	case "test_structured":
		a, _ := given["a"].(float64)
		b, _ := given["b"].(float64)
		result := text(fmt.Sprintf(`{"sum":%v}`, a+b))
		result.StructuredContent = map[string]any{"sum": a + b}
		return result, nil
	case "test_custom_header":
		return text(fmt.Sprintf("region %v", given["region"])), nil
	case "test_slow":
		return p.slow(ctx, r, given)
	case "test_cancellations":
		return text(p.counted()), nil
	case "test_touch":
		uri := *scheme + "://watched-resource"
		return text("announced"), p.ResourceUpdated(ctx, &mcp.ResourceUpdatedNotificationParams{URI: uri})
	case "test_toggle":
		return p.toggle(), nil
	case "test_trigger_tool_change":
		p.toggle()
		p.toggle()
		return text("announced"), nil
	case "test_trigger_prompt_change":
		p.AddPrompt(p.fixture.Prompts[0], p.prompt)
		return text("announced"), nil
	}
	return nil, &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: "unknown tool " + r.Params.Name}
}

func (p *peer) slow(ctx context.Context, r *mcp.CallToolRequest, given map[string]any) (*mcp.CallToolResult, error) {
	seconds, _ := given["seconds"].(float64)
	steps := math.Ceil(seconds / step.Seconds())
	for at := 1.0; at <= steps; at++ {
		select {
		case <-ctx.Done():
			p.cancelled.Add(1)
			if file, err := os.OpenFile(*cancelled, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
				_, _ = file.WriteString(".")
				_ = file.Close()
			}
			return nil, ctx.Err()
		case <-time.After(step):
		}
		progress(ctx, r, at, steps)
	}
	return text(fmt.Sprintf("slept %v s", seconds)), nil
}

func (p *peer) counted() string {
	if *cancelled == "" {
		return strconv.FormatInt(p.cancelled.Load(), 10)
	}
	about, err := os.Stat(*cancelled)
	if err != nil {
		return "0"
	}
	return strconv.FormatInt(about.Size(), 10)
}

func (p *peer) toggle() *mcp.CallToolResult {
	p.extra.Lock()
	defer p.extra.Unlock()
	p.shown = !p.shown
	if !p.shown {
		p.RemoveTools("test_extra")
		return text("removed")
	}
	p.addTool(p.fixture.ExtraTool, func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return text("extra"), nil
	})
	return text("added")
}
