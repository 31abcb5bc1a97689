package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// A target is an entry of targets.json, in the words of a federation.
type target struct {
	label, prefix string
	entry         map[string]json.RawMessage
	skip          map[string]string
}

func (t target) named(own string) string { return t.prefix + own }

func (t target) about(feature string) (about struct {
	Tool, Argument, Text, Observe, Prompt, Value, Name, URI, Template, Kind, Appears, Match, Subscribe, Stop string
	Arguments                                                                                                map[string]any
	Keys, Values, Quiet, Loud, Result, Parts                                                                 []string
	Definition                                                                                               map[string]string
	Steps                                                                                                    int
	Again                                                                                                    bool
}) {
	_ = json.Unmarshal(t.entry[feature], &about)
	return about
}

func (t target) list(key string) (names []string) {
	_ = json.Unmarshal(t.entry[key], &names)
	return names
}

var targetName = regexp.MustCompile(`^([^=]+)(?:=([^,]*)(?:,(.+))?)?$`)

func load(given options) (targets []target, err error) {
	text, err := os.ReadFile(given.targets)
	if err != nil {
		return nil, err
	}
	for _, name := range given.names {
		parts := targetName.FindStringSubmatch(name)
		scheme := parts[3]
		if scheme == "" {
			scheme = "test"
		}
		own := strings.ReplaceAll(string(text), "test://", scheme+"://")
		own = strings.ReplaceAll(own, "ui://fixture/", "ui://"+scheme+"/")
		var all map[string]json.RawMessage
		if err = json.Unmarshal([]byte(own), &all); err != nil {
			return nil, err
		}
		made := target{label: parts[2], prefix: parts[2]}
		if made.label == "" {
			made.label = parts[1]
		}
		if err = json.Unmarshal(all[parts[1]], &made.entry); err != nil {
			return nil, err
		}
		if err = json.Unmarshal(made.entry["skip"], &made.skip); err != nil {
			return nil, err
		}
		targets = append(targets, made)
	}
	return targets, nil
}

type reporter struct {
	given                   options
	passed, failed, skipped int
}

// line runs one feature and prints what it did.
func (r *reporter) line(feature, reason string, run func(context.Context) (string, error)) {
	if r.given.only != nil && !slices.Contains(r.given.only, feature[strings.LastIndex(feature, "/")+1:]) {
		return
	}
	said := map[string]any{"feature": feature}
	if reason != "" {
		r.skipped++
		said["skipped"] = reason
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), featureMs)
		detail, err := run(ctx)
		cancel()
		said["ok"], said["detail"] = err == nil, detail
		if err != nil {
			said["detail"] = err.Error()
			r.failed++
		} else {
			r.passed++
		}
	}
	text, _ := json.Marshal(said)
	fmt.Println(string(text))
}

func (r *reporter) end() {
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	if r.failed > 0 || r.passed == 0 {
		os.Exit(1)
	}
	os.Exit(0)
}

func contains(text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("%.300q does not contain %q", text, part)
	}
	return nil
}

func offered(uris []string, uri string) (string, error) {
	if slices.Contains(uris, uri) {
		return uri, nil
	}
	_, path, _ := strings.Cut(uri, "://")
	for _, candidate := range uris {
		if strings.HasSuffix(candidate, path) {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%s is not among %v", uri, uris)
}

func (s *session) toolNames(ctx context.Context) (names []string, err error) {
	for tool, failed := range s.Tools(ctx, nil) {
		if failed != nil {
			return nil, failed
		}
		names = append(names, tool.Name)
	}
	return names, nil
}

func (s *session) uris(ctx context.Context) (uris []string, err error) {
	for resource, failed := range s.Resources(ctx, nil) {
		if failed != nil {
			return nil, failed
		}
		uris = append(uris, resource.URI)
	}
	return uris, nil
}

func has(found, wanted []string, named func(string) string) (string, error) {
	for _, name := range wanted {
		if !slices.Contains(found, named(name)) {
			return "", fmt.Errorf("%s is missing in %v", named(name), found)
		}
	}
	return fmt.Sprintf("%d of them", len(found)), nil
}

type feature struct {
	name string
	run  func(context.Context, *session, target) (string, error)
}

// asking is a feature that calls a tool which asks the client.
func asking(name string) feature {
	return feature{name, func(ctx context.Context, s *session, t target) (string, error) {
		about := t.about(name)
		said, err := s.text(ctx, t.named(about.Tool), about.Arguments)
		if err != nil {
			return "", err
		}
		if name == "roots" {
			about.Text = root
		}
		return "", contains(said, about.Text)
	}}
}

var features = []feature{
	{"initialize", func(_ context.Context, s *session, _ target) (string, error) {
		hello := s.InitializeResult()
		have := hello.Capabilities
		if have.Tools == nil || have.Prompts == nil || have.Resources == nil || have.Logging == nil || have.Completions == nil {
			return "", fmt.Errorf("a capability is missing in %+v", have)
		}
		return "at " + hello.ProtocolVersion, nil
	}},
	{"ping", func(ctx context.Context, s *session, _ target) (string, error) { return "", s.Ping(ctx, nil) }},
	{"tools", func(ctx context.Context, s *session, t target) (string, error) {
		names, err := s.toolNames(ctx)
		if err != nil {
			return "", err
		}
		return has(names, t.list("tools"), t.named)
	}},
	{"annotated", annotated},
	{"prompts", func(ctx context.Context, s *session, t target) (string, error) {
		var names []string
		for prompt, err := range s.Prompts(ctx, nil) {
			if err != nil {
				return "", err
			}
			names = append(names, prompt.Name)
		}
		return has(names, t.list("prompts"), t.named)
	}},
	{"resources", func(ctx context.Context, s *session, t target) (string, error) {
		uris, err := s.uris(ctx)
		for _, uri := range t.list("resources") {
			if err == nil {
				_, err = offered(uris, uri)
			}
		}
		return "", err
	}},
	{"templates", func(ctx context.Context, s *session, t target) (string, error) {
		found, err := s.templates(ctx)
		for _, template := range t.list("templates") {
			if err == nil {
				_, err = offered(found, template)
			}
		}
		return "", err
	}},
	{"call", call},
	{"unknown_tool", func(ctx context.Context, s *session, t target) (string, error) {
		if _, err := s.call(ctx, t.named("no_such_tool"), nil, nil); err != nil {
			return err.Error(), nil
		}
		return "", errors.New("a call of an unknown tool succeeded")
	}},
	{"structured", func(ctx context.Context, s *session, t target) (string, error) {
		about := t.about("structured")
		result, err := s.call(ctx, t.named(about.Tool), about.Arguments, nil)
		if err != nil {
			return "", err
		}
		content, _ := result.StructuredContent.(map[string]any)
		for _, key := range about.Keys {
			if content[key] == nil {
				return "", fmt.Errorf("%s is missing in %v", key, content)
			}
		}
		return "", nil
	}},
	{"header", func(ctx context.Context, s *session, t target) (string, error) {
		about := t.about("header")
		if _, err := s.toolNames(ctx); err != nil { // tells the client which arguments are mirrored
			return "", err
		}
		said, err := s.text(ctx, t.named(about.Tool), about.Arguments)
		return "", errors.Join(err, contains(said, about.Text))
	}},
	{"parallel", parallel},
	{"progress", func(ctx context.Context, s *session, t target) (string, error) {
		about := t.about("progress")
		var token string
		if _, err := s.call(ctx, t.named(about.Tool), about.Arguments, func(own string) { token = own }); err != nil {
			return "", err
		}
		err := s.until(fmt.Sprintf("%d progress notifications", about.Steps), func() bool { return len(s.progress[token]) >= about.Steps })
		return "", err
	}},
	{"prompt", func(ctx context.Context, s *session, t target) (string, error) { return prompted(ctx, s, t, "prompt") }},
	{"prompt_input", func(ctx context.Context, s *session, t target) (string, error) {
		return prompted(ctx, s, t, "prompt_input")
	}},
	{"read", func(ctx context.Context, s *session, t target) (string, error) {
		about := t.about("read")
		return read(ctx, s, about.URI, about.Text)
	}},
	{"unknown_resource", func(ctx context.Context, s *session, _ target) (string, error) {
		if _, err := s.ReadResource(ctx, &mcp.ReadResourceParams{URI: "test://no-such/resource"}); err != nil {
			return err.Error(), nil
		}
		return "", errors.New("an unknown resource was read")
	}},
	{"template", func(ctx context.Context, s *session, t target) (string, error) {
		about := t.about("template")
		found, err := s.templates(ctx)
		if err != nil {
			return "", err
		}
		template, err := offered(found, about.Template)
		if err != nil {
			return "", err
		}
		uri := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(template, about.Value)
		result, err := s.ReadResource(ctx, &mcp.ReadResourceParams{URI: uri})
		if err != nil {
			return "", err
		}
		return uri, contains(result.Contents[0].Text, about.Text)
	}},
	{"app", func(ctx context.Context, s *session, t target) (string, error) {
		about := t.about("app")
		return read(ctx, s, about.URI, about.Parts...)
	}},
	{"completion", func(ctx context.Context, s *session, t target) (string, error) {
		about := t.about("completion")
		result, err := s.Complete(ctx, &mcp.CompleteParams{
			Ref:      &mcp.CompleteReference{Type: "ref/prompt", Name: t.named(about.Prompt)},
			Argument: mcp.CompleteParamsArgument{Name: about.Argument, Value: about.Value},
		})
		if err == nil && !reflect.DeepEqual(result.Completion.Values, about.Values) {
			err = fmt.Errorf("got %v, expected %v", result.Completion.Values, about.Values)
		}
		return "", err
	}},
	asking("sampling"), asking("sampling_tools"), asking("elicitation"), asking("elicitation_url"), asking("roots"),
	asking("inputs"), asking("rounds"),
	{"logging", logging},
	{"subscription", subscription},
	{"cancellation", cancellation},
	{"list_changed", listChanged},
	asking("reconnection"),
}

func (s *session) templates(ctx context.Context) (found []string, err error) {
	for template, failed := range s.ResourceTemplates(ctx, nil) {
		if failed != nil {
			return nil, failed
		}
		found = append(found, template.URITemplate)
	}
	return found, nil
}

func annotated(ctx context.Context, s *session, t target) (string, error) {
	about := t.about("annotated")
	for tool, err := range s.Tools(ctx, nil) {
		if err != nil {
			return "", err
		}
		if tool.Name != t.named(about.Tool) {
			continue
		}
		text, err := json.Marshal(tool)
		for _, value := range about.Definition {
			err = errors.Join(err, contains(string(text), value))
		}
		if err != nil {
			return "", err
		}
	}
	result, err := s.call(ctx, t.named(about.Tool), nil, nil)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(result)
	for _, part := range about.Result {
		err = errors.Join(err, contains(string(text), part))
	}
	return "", err
}

func call(ctx context.Context, s *session, t target) (string, error) {
	about := t.about("call")
	given := map[string]any{}
	if about.Argument != "" {
		given[about.Argument] = "zażółć 🦀"
		about.Text += "zażółć 🦀"
	}
	said, err := s.text(ctx, t.named(about.Tool), given)
	return "", errors.Join(err, contains(said, about.Text))
}

func parallel(ctx context.Context, s *session, t target) (string, error) {
	failures := make([]error, 20)
	var all sync.WaitGroup
	for at := range failures {
		all.Add(1)
		go func() {
			defer all.Done()
			_, failures[at] = call(ctx, s, t)
		}()
	}
	all.Wait()
	return "", errors.Join(failures...)
}

func prompted(ctx context.Context, s *session, t target, name string) (string, error) {
	about := t.about(name)
	given := map[string]string{}
	for key, value := range about.Arguments {
		given[key] = fmt.Sprint(value)
	}
	result, err := s.GetPrompt(ctx, &mcp.GetPromptParams{Name: t.named(about.Name), Arguments: given})
	if err != nil {
		return "", err
	}
	var content []mcp.Content
	for _, message := range result.Messages {
		content = append(content, message.Content)
	}
	return "", contains(textOf(content), about.Text)
}

func read(ctx context.Context, s *session, uri string, parts ...string) (string, error) {
	uris, err := s.uris(ctx)
	if err != nil {
		return "", err
	}
	if uri, err = offered(uris, uri); err != nil {
		return "", err
	}
	result, err := s.ReadResource(ctx, &mcp.ReadResourceParams{URI: uri})
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(result.Contents[0])
	plain := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(string(text))
	for _, part := range parts {
		err = errors.Join(err, contains(plain, part))
	}
	return uri, err
}

func logging(ctx context.Context, s *session, t target) (string, error) {
	about := t.about("logging")
	for level, expected := range map[mcp.LoggingLevel][]string{"error": about.Quiet, "info": about.Loud} {
		s.level = level
		if !s.modern {
			if err := s.SetLoggingLevel(ctx, &mcp.SetLoggingLevelParams{Level: level}); err != nil {
				return "", err
			}
		}
		s.note(func() { s.logs = nil })
		if about.Tool == "" {
			if err := s.touchOnce(ctx, about.Subscribe); err != nil {
				return "", err
			}
		} else if _, err := s.call(ctx, t.named(about.Tool), nil, nil); err != nil {
			return "", err
		}
		levels := func() (found []string) {
			for _, each := range s.logs {
				if text, _ := json.Marshal(each.Data); strings.Contains(string(text), about.Match) {
					found = append(found, string(each.Level))
				}
			}
			return found
		}
		if err := s.until("log messages", func() bool { return len(levels()) >= len(expected) }); err != nil {
			return "", err
		}
		time.Sleep(quiet)
		var got []string
		s.note(func() { got = levels() })
		if len(got) != len(expected) || len(got) > 0 && !reflect.DeepEqual(got, expected) {
			return "", fmt.Errorf("got %v at %s, expected %v", got, level, expected)
		}
	}
	return "", nil
}

func (s *session) touchOnce(ctx context.Context, uri string) error {
	uris, err := s.uris(ctx)
	if err != nil {
		return err
	}
	if uri, err = offered(uris, uri); err != nil {
		return err
	}
	if err = s.Subscribe(ctx, &mcp.SubscribeParams{URI: uri}); err != nil {
		return err
	}
	return s.Unsubscribe(ctx, &mcp.UnsubscribeParams{URI: uri})
}

func subscription(ctx context.Context, s *session, t target) (string, error) {
	about := t.about("subscription")
	uris, err := s.uris(ctx)
	if err != nil {
		return "", err
	}
	uri, err := offered(uris, about.URI)
	if err != nil {
		return "", err
	}
	if err = s.Subscribe(ctx, &mcp.SubscribeParams{URI: uri}); err != nil {
		return "", err
	}
	if s.modern {
		time.Sleep(quiet) // this client does not wait for the acknowledgement
	}
	touch := func(tool string) error {
		if tool == "" {
			return nil
		}
		_, err := s.call(ctx, t.named(tool), nil, nil)
		return err
	}
	s.note(func() { s.updated = nil })
	err = touch(about.Tool)
	if err == nil {
		err = s.until("notifications/resources/updated of "+uri, func() bool { return slices.Contains(s.updated, uri) })
	}
	if err == nil {
		err = errors.Join(touch(about.Stop), s.Unsubscribe(ctx, &mcp.UnsubscribeParams{URI: uri}))
	}
	time.Sleep(quiet)
	s.note(func() { s.updated = nil })
	err = errors.Join(err, touch(about.Tool))
	time.Sleep(quiet)
	s.note(func() {
		if err == nil && len(s.updated) > 0 {
			err = fmt.Errorf("got %v after the end", s.updated)
		}
	})
	return "", errors.Join(err, touch(about.Stop))
}

func cancellation(ctx context.Context, s *session, t target) (string, error) {
	about := t.about("cancellation")
	count := func() string {
		said, err := s.text(ctx, t.named(about.Observe), nil)
		if err != nil {
			return err.Error()
		}
		return said
	}
	before := ""
	if about.Observe != "" {
		before = count()
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	var token string
	outcome := make(chan error, 1)
	begun := make(chan bool, 1)
	go func() {
		_, err := s.call(within, t.named(about.Tool), about.Arguments, func(own string) { token = own; begun <- true })
		outcome <- err
	}()
	<-begun
	if err := s.until("any progress", func() bool { return len(s.progress[token]) > 0 }); err != nil {
		return "", err
	}
	cancel()
	if err := <-outcome; err == nil {
		return "", errors.New("the cancelled call was answered")
	}
	if about.Observe != "" {
		for end := time.Now().Add(wait); count() == before; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				return "", errors.New("a cancellation seen by the server did not happen")
			}
		}
	}
	return call(ctx, s, t)
}

func listChanged(ctx context.Context, s *session, t target) (string, error) {
	about := t.about("list_changed")
	there := func() bool {
		if about.Kind == "resources" {
			uris, _ := s.uris(ctx)
			return slices.ContainsFunc(uris, func(uri string) bool { return strings.Contains(uri, about.Appears) })
		}
		names, _ := s.toolNames(ctx)
		return slices.Contains(names, t.named(about.Appears))
	}
	toggle := func() error {
		_, err := s.call(ctx, t.named(about.Tool), about.Arguments, nil)
		return err
	}
	if there() { // left there by somebody who failed
		if err := toggle(); err != nil || there() {
			return "", errors.Join(err, fmt.Errorf("%s is there before", about.Appears))
		}
	}
	wanted := []bool{true}
	if about.Again {
		wanted = []bool{true, false}
	}
	for _, wanted := range wanted {
		var before int
		s.note(func() { before = s.changed[about.Kind] })
		if err := toggle(); err != nil {
			return "", err
		}
		if err := s.until("list_changed of "+about.Kind, func() bool { return s.changed[about.Kind] > before }); err != nil {
			return "", err
		}
		for end := time.Now().Add(wait); there() != wanted; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				return "", fmt.Errorf("%s: it is %v that it is listed", about.Appears, !wanted)
			}
		}
	}
	return "", nil
}

func drive(s *session, targets []target, report *reporter) {
	for _, t := range targets {
		for _, each := range features {
			reason := s.given.skip[each.name]
			if reason == "" {
				reason = t.skip[each.name]
			}
			if s.modern && each.name == "ping" {
				reason = "not part of 2026-07-28"
			}
			report.line(t.label+"/"+each.name, reason, func(ctx context.Context) (string, error) { return each.run(ctx, s, t) })
		}
	}
	together := []string{"sampling", "elicitation", "roots", "progress", "parallel"}
	report.line("together", s.given.skip["together"], func(ctx context.Context) (string, error) {
		var all sync.WaitGroup
		var failures []error
		for _, t := range targets {
			for _, each := range features {
				if !slices.Contains(together, each.name) || t.skip[each.name] != "" {
					continue
				}
				all.Add(1)
				go func() {
					defer all.Done()
					_, err := each.run(ctx, s, t)
					s.note(func() { failures = append(failures, err) })
				}()
			}
		}
		all.Wait()
		return "", errors.Join(failures...)
	})
}
